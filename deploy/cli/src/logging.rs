//! Logs of JobManager and TaskManager: lines on standard error, text or JSON.

use thalweg_config::{Configuration, options::LogFormat};
use tracing_subscriber::EnvFilter;

/// Starts logging as configured. Once for a process.
pub fn start(configuration: &Configuration) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&configuration.log.level)
        .map_err(|e| crate::exit::wrong_use(format!("log.level {:?}: {e}", configuration.log.level)))?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match configuration.log.format {
        LogFormat::Text => base.init(),
        LogFormat::Json => base.json().init(),
    }
    Ok(())
}
