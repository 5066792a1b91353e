//! Sections of plugins: linked, chosen, neither. The plugins here do nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use async_trait::async_trait;
use std::sync::Arc;
use thalweg_config::Configuration;
use thalweg_spi::{
    BlobService, ByteSize, DeploymentMode, ErrorKind, Plugin, PluginConfig, PluginContext, Result, ServiceError,
    inventory, kind,
};

/// Options of a blob plugin.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct LocalConfig {
    /// Where the files are.
    dir: Option<String>,
    /// Longest file.
    #[serde(rename = "max-size")]
    max_size: ByteSize,
    /// How many.
    #[schemars(range(min = 1, max = 10))]
    copies: u32,
    /// The password.
    #[schemars(extend("writeOnly" = true))]
    password: Option<String>,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self { dir: None, max_size: ByteSize::from_mib(1), copies: 1, password: None }
    }
}

#[async_trait]
impl PluginConfig<kind::Blob> for LocalConfig {
    const NAME: &'static str = "local";
    const SUMMARY: &'static str = "Keeps blobs.";

    fn validate(&self) -> Result<(), String> {
        if self.dir.as_deref() == Some("") { Err("dir must not be empty".into()) } else { Ok(()) }
    }

    async fn open(self, _: PluginContext) -> Result<Arc<dyn BlobService>> {
        Err(ServiceError::new(ErrorKind::Unsupported, "open", "a test's"))
    }
}

/// Nothing to set.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct SessionConfig {}

#[async_trait]
impl PluginConfig<kind::Deployment> for SessionConfig {
    const NAME: &'static str = "session";
    const SUMMARY: &'static str = "Takes jobs.";
    const EXPERIMENTAL: bool = true;

    async fn open(self, _: PluginContext) -> Result<Arc<dyn DeploymentMode>> {
        Err(ServiceError::new(ErrorKind::Unsupported, "open", "a test's"))
    }
}

inventory::submit! { Plugin::<kind::Blob>::of::<LocalConfig>() }
inventory::submit! { Plugin::<kind::Deployment>::of::<SessionConfig>() }

fn with(overrides: &[&str]) -> Result<Configuration, String> {
    Configuration::with(overrides.iter().copied()).map_err(|e| e.to_string())
}

#[test]
fn a_chosen_plugins_options_are_typed_and_checked() {
    let c = with(&["blob.local.dir=/x", "blob.local.copies=2", "blob.local.max-size=2MiB"]).unwrap();
    let options = c.options_of("blob");
    assert_eq!(options["copies"].as_integer(), Some(2));
    assert_eq!(options["dir"].as_str(), Some("/x"));
    for (override_, part) in [
        ("blob.local.copies=11", "11 is out of range: it is a number from 1 to 10"),
        ("blob.local.max-size=2", "\"2\" has no unit"),
        ("blob.local.dirr=/x", "blob.local.dirr (-Dblob.local.dirr=/x): unknown option; did you mean blob.local.dir?"),
        ("blob.local.dir=", "dir must not be empty"),
        ("blob.dir=/x", "did you mean blob.local.dir?"),
    ] {
        let wrong = with(&[override_]).unwrap_err();
        assert!(wrong.contains(part), "{part} not in {wrong}");
    }
}

#[test]
fn an_unknown_name_answers_what_is_linked_and_foreign_sections_are_skipped() {
    let wrong = with(&["blob.type=locl"]).unwrap_err();
    assert!(wrong.contains("unknown blob \"locl\"; this build has: local; did you mean \"local\"?"), "{wrong}");
    assert!(with(&["blob.object-store.bucket=b", "shuffle.rdma.device=x"]).is_ok());
    // No shuffle plugin is linked here, so its name is somebody else's business.
    assert_eq!(with(&["shuffle.type=rdma"]).unwrap().plugin_name("shuffle"), "rdma");
}

#[test]
fn what_is_in_effect_shows_defaults_and_no_secret() {
    let c = with(&["blob.local.password=hunter2", "blob.local.dir=/x"]).unwrap();
    let text = c.effective_toml();
    assert!(text.contains("[blob.local]") && text.contains("copies = 1") && text.contains("dir = \"/x\""), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(c.options_of("blob")["password"].as_str(), Some("hunter2"));
}

#[test]
fn the_reference_shows_linked_plugins() {
    let text = thalweg_config::reference();
    for part in [
        "### `[blob.local]`\n\nKeeps blobs.",
        "| `blob.local.max-size` | `\"1MiB\"` | size | Longest file. |",
        "| `blob.local.copies` | `1` | whole number from 1 to 10 | How many. |",
        "| `blob.local.dir` | – | text | Where the files are. |",
        "The password. It is a secret, and never shown.",
        "### `[deployment.session]` *(experimental)*\n\nTakes jobs.\n\nIt has no options.",
    ] {
        assert!(text.contains(part), "{part} not in {text}");
    }
    assert_eq!(thalweg_config::plugins().iter().map(|p| p.name).collect::<Vec<_>>(), ["local", "session"]);
}
