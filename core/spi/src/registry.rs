//! The registry: plugins register themselves at link time, and are looked up by kind and name at start-up.

use crate::{ErrorKind, PluginContext, Result, ServiceError};
use async_trait::async_trait;
use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// A kind of plugin: see [`crate::kind`].
pub trait PluginKind: 'static {
    /// Its section in the configuration.
    const KEY: &'static str;
    /// What its plugins open.
    type Service: ?Sized + Send + Sync + 'static;
}

/// A plugin's options, and how to open it. The struct's doc comments become the configuration's reference.
///
/// Give it `#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]`, so that a misspelt option is refused.
#[async_trait]
pub trait PluginConfig<K: PluginKind>:
    DeserializeOwned + Serialize + Default + schemars::JsonSchema + Send + 'static
{
    /// What users write after `type =`.
    const NAME: &'static str;
    /// One line for `thalweg plugins`.
    const SUMMARY: &'static str;
    /// The conformance suite has not passed on the real service.
    const EXPERIMENTAL: bool = false;

    /// Are the values in range? Says which is not and what would be. Must not do I/O.
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }

    /// Starts the service. An error here stops the process before it has done anything.
    async fn open(self, context: PluginContext) -> Result<Arc<K::Service>>;
}

/// A plugin that this build could have and has not, so that whoever asks for it is told how to get it.
pub struct LeftOut {
    /// The kind's key.
    pub kind: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What to do: *build it with …*
    pub remedy: &'static str,
}

inventory::collect!(LeftOut);

impl LeftOut {
    /// What to do to get this plugin, if it was left out.
    pub fn remedy(kind: &str, name: &str) -> Option<&'static str> {
        inventory::iter::<LeftOut>.into_iter().find(|out| out.kind == kind && out.name == name).map(|out| out.remedy)
    }
}

type Opening<K> = BoxFuture<'static, Result<Arc<<K as PluginKind>::Service>>>;

/// One registered plugin: function pointers and `&'static str` only, so that it can stand in a `static`.
pub struct Plugin<K: PluginKind> {
    /// What users write after `type =`.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Not proved on the real service.
    pub experimental: bool,
    schema: fn() -> schemars::Schema,
    defaults: fn() -> Option<toml::Value>,
    check: fn(toml::Value) -> Result<(), String>,
    open: fn(toml::Value, PluginContext) -> Opening<K>,
}

/// What can be said of a plugin without its type.
#[derive(Debug, Clone, Serialize)]
pub struct PluginInfo {
    /// The kind's key.
    pub kind: &'static str,
    /// Its name.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Not proved on the real service.
    pub experimental: bool,
    /// JSON schema of its options, with their doc comments.
    pub schema: serde_json::Value,
    /// Values of the options when nothing is configured.
    pub defaults: serde_json::Value,
}

fn parse<C: DeserializeOwned>(options: toml::Value) -> Result<C, String> {
    options.try_into::<C>().map_err(|e| e.message().to_owned())
}

fn check_with<K: PluginKind, C: PluginConfig<K>>(options: toml::Value) -> Result<(), String> {
    parse::<C>(options)?.validate()
}

fn open_with<K: PluginKind, C: PluginConfig<K>>(options: toml::Value, context: PluginContext) -> Opening<K> {
    Box::pin(async move {
        let wrong = |m: String| ServiceError::new(ErrorKind::InvalidConfig, "open plugin", m).with(K::KEY, C::NAME);
        let config = parse::<C>(options).map_err(wrong)?;
        config.validate().map_err(wrong)?;
        config.open(context).await
    })
}

fn schema_of<C: schemars::JsonSchema>() -> schemars::Schema {
    schemars::schema_for!(C)
}

fn defaults_of<C: Default + Serialize>() -> Option<toml::Value> {
    toml::Value::try_from(C::default()).ok()
}

impl<K: PluginKind> Plugin<K> {
    /// The plugin whose configuration is `C`.
    pub const fn of<C: PluginConfig<K>>() -> Self {
        Plugin {
            name: C::NAME,
            summary: C::SUMMARY,
            experimental: C::EXPERIMENTAL,
            schema: schema_of::<C>,
            defaults: defaults_of::<C>,
            check: check_with::<K, C>,
            open: open_with::<K, C>,
        }
    }

    /// Are these options good? Does no I/O.
    pub fn check(&self, options: toml::Value) -> Result<(), String> {
        (self.check)(options)
    }

    /// Opens the service with these options (a table).
    pub async fn open(&self, options: toml::Value, context: PluginContext) -> Result<Arc<K::Service>> {
        (self.open)(options, context).await
    }

    /// What can be said of it without its type.
    pub fn info(&self) -> PluginInfo {
        PluginInfo {
            kind: K::KEY,
            name: self.name,
            summary: self.summary,
            experimental: self.experimental,
            schema: (self.schema)().to_value(),
            defaults: (self.defaults)().and_then(|d| serde_json::to_value(d).ok()).unwrap_or_default(),
        }
    }

    /// All plugins of this kind that are linked into this executable, by name.
    pub fn all() -> Vec<&'static Plugin<K>>
    where
        Plugin<K>: inventory::Collect,
    {
        let mut all: Vec<_> = inventory::iter::<Plugin<K>>.into_iter().collect();
        all.sort_by_key(|p| p.name);
        all
    }

    /// The plugin with this name. Two that share a name are refused, since the linker would choose between them.
    pub fn find(name: &str) -> Result<&'static Plugin<K>>
    where
        Plugin<K>: inventory::Collect,
    {
        choose(K::KEY, name, &Self::all(), |p| p.name).copied()
    }
}

fn choose<'a, P>(key: &str, name: &str, all: &'a [P], name_of: impl Fn(&P) -> &str) -> Result<&'a P> {
    let wrong = |m: String| Err(ServiceError::new(ErrorKind::InvalidConfig, "look up plugin", m));
    let mut found = all.iter().filter(|p| name_of(p) == name);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            wrong(format!("{key} {name:?} is registered twice in this build: remove one of the crates"))
        }
        (None, _) => {
            let known: Vec<_> = all.iter().map(&name_of).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            wrong(format!("unknown {key} {name:?}; this build has: {known}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_answers_those_that_are_there() {
        let error = choose("high-availability", "etdc", &["etcd", "standalone"], |p| p).unwrap_err();
        assert_eq!(error.message(), "unknown high-availability \"etdc\"; this build has: etcd, standalone");
        assert!(choose("blob", "x", &[] as &[&str], |p| p).unwrap_err().message().ends_with("has: none"));
    }

    #[test]
    fn a_name_registered_twice_is_refused() {
        assert!(choose("blob", "a", &["a", "a"], |p| p).unwrap_err().message().contains("registered twice"));
        assert_eq!(choose("blob", "b", &["a", "b"], |p| p).unwrap(), &"b");
    }
}
