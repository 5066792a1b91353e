//! `thalweg config`: what is configured, whether it would start, and the reference.

use crate::{common::Global, exit::Exit};
use clap::Subcommand;

/// Sub-commands.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Prints every option with its value.
    Show,
    /// Says what would start, or why not. Starts nothing.
    Check,
    /// Prints the reference of all options.
    Reference,
}

/// Runs one.
pub fn run(global: &Global, command: ConfigCommand) -> anyhow::Result<Exit> {
    match command {
        ConfigCommand::Show => print!("{}", global.configuration()?.effective_toml()),
        ConfigCommand::Reference => print!("{}", thalweg_config::reference()),
        ConfigCommand::Check => {
            let configuration = global.configuration()?;
            println!("the configuration is good; it would start");
            println!("  cluster            {}", configuration.cluster.name.id());
            for kind in ["deployment", "resource-provider", "high-availability", "shuffle", "blob"] {
                println!("  {kind:<18} {}", configuration.plugin_name(kind));
            }
            println!("  REST               {}:{}", configuration.rest.bind, configuration.rest.port);
            println!("  JobManager RPC     {}:{}", configuration.job_manager.bind, configuration.job_manager.rpc_port);
            println!("  slots each         {}", configuration.task_manager.slots);
        }
    }
    Ok(Exit::Ok)
}
