//! Looks whether protoc is there before `etcd-client` is built, which would say less. It has no dependencies, so it runs
//! first; nothing of the plugin is made here.

use std::{path::PathBuf, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=PROTOC");
    println!("cargo:rerun-if-env-changed=PROTOC_INCLUDE");
    println!("cargo:rerun-if-changed=build.rs");
    if let Err(why) = look() {
        eprintln!(
            "\n{why}\n\
             The etcd plugin needs protoc and its standard files to build. On Debian:\n\
             \n    apt-get install protobuf-compiler libprotobuf-dev\n\n\
             Elsewhere name them in PROTOC and PROTOC_INCLUDE. To build without etcd leave the feature `etcd` of\n\
             thalweg-cli out, or the crate: cargo build --workspace --exclude thalweg-high-availability-etcd\n"
        );
        std::process::exit(1);
    }
}

/// Compiles a file that imports what `etcd-client`'s import.
fn look() -> Result<(), String> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let file = out.join("look.proto");
    let text = "syntax = \"proto3\";\nimport \"google/protobuf/descriptor.proto\";\nimport \"google/protobuf/struct.proto\";\n\
                message Look { google.protobuf.Struct struct = 1; google.protobuf.FieldOptions options = 2; }\n";
    std::fs::write(&file, text).map_err(|e| e.to_string())?;
    let protoc = std::env::var_os("PROTOC").unwrap_or_else(|| "protoc".into());
    let mut command = Command::new(&protoc);
    command.arg("-I").arg(&out);
    if let Some(include) = std::env::var_os("PROTOC_INCLUDE") {
        command.arg("-I").arg(include);
    }
    command.arg("--descriptor_set_out").arg(out.join("look.bin")).arg(&file);
    match command.output() {
        Err(e) => Err(format!("{}: {e}.", protoc.to_string_lossy())),
        Ok(output) if !output.status.success() => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Ok(_) => Ok(()),
    }
}
