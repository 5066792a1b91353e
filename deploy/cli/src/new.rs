//! `thalweg new`: a job project that builds and runs, with uids set.

use crate::exit::{Exit, wrong_use};
use anyhow::Context;
use std::path::{Path, PathBuf};

const MAIN: &str = include_str!("new/main.rs.txt");

/// What is not on the records' way is built for a short build.
const PROFILES: &str = "# What no record passes through is built to be built soon.
[profile.release.package.\"*\"]
debug = false
[profile.release.package]
thalweg-config.opt-level = 1
thalweg-control.opt-level = 1
thalweg-rpc.opt-level = 1
thalweg-runtime.opt-level = 1
thalweg-task.opt-level = 1
";

fn built_in() -> PathBuf {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    deploy.join("thalweg")
}

/// Makes the project.
pub fn run(name: &str, checkout: Option<PathBuf>) -> anyhow::Result<Exit> {
    let good = !name.is_empty()
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
        && name.starts_with(|c: char| c.is_ascii_lowercase());
    if !good {
        return Err(wrong_use(format!("{name:?} is not a crate name: use lower-case letters, digits, - and _")));
    }
    let dir = Path::new(name);
    if dir.exists() {
        return Err(wrong_use(format!("{name} is there already: choose another name, or remove it")));
    }
    let dependency = match checkout {
        Some(path) => {
            let path = path.canonicalize().with_context(|| format!("{} cannot be read", path.display()))?;
            let facade = path.join("deploy/thalweg");
            if !facade.join("Cargo.toml").exists() {
                return Err(wrong_use(format!("{} is not a checkout of Thalweg", path.display())));
            }
            format!("thalweg = {{ path = {:?} }}", facade.display().to_string())
        }
        // The checkout that this command was built in, as long as it is there.
        None if built_in().join("Cargo.toml").exists() => {
            format!("thalweg = {{ path = {:?} }}", built_in().display().to_string())
        }
        None => {
            let version = env!("CARGO_PKG_VERSION");
            eprintln!(
                "thalweg: {name}/Cargo.toml asks for thalweg {version} of the registry; to build against a checkout use --path CHECKOUT"
            );
            format!("thalweg = {version:?}")
        }
    };
    let manifest = format!(
        "[package]\nname = {name:?}\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n{dependency}\nserde = {{ version = \"1\", features = [\"derive\"] }}\n\n\
         # A job is a workspace of its own.\n[workspace]\n\n[profile.release]\ndebug = \"line-tables-only\"\n\n{PROFILES}"
    );
    std::fs::create_dir_all(dir.join("src"))?;
    std::fs::write(dir.join("Cargo.toml"), manifest)?;
    std::fs::write(dir.join("src/main.rs"), MAIN.replace("@name@", name))?;
    std::fs::write(dir.join(".gitignore"), "/target\n")?;
    println!(
        "made {name}/; next:\n  cd {name}\n  cargo run --release                  # embedded, in one process\n  cargo build --release\n  thalweg run target/release/{name}    # on a cluster"
    );
    Ok(Exit::Ok)
}
