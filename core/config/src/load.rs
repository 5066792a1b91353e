//! [`Configuration`]: the checked whole, and how it is loaded.

use crate::{
    ConfigError, ConfigProblem, PluginSection, Source,
    known::Known,
    layers::{self, at, insert},
    nearest::nearest,
    options as o,
    restart::Restart,
    rules,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use thalweg_spi::{ErrorKind, LeftOut, Plugin, PluginContext, PluginKind, ServiceError, inventory};
use toml::{Table, Value};

/// Where a configuration comes from. `load` reads `file` and nothing else of the world.
#[derive(Debug, Clone)]
pub struct Sources<E> {
    /// The configuration file; one that is named must be there.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `THALWEG__` are not looked at.
    pub environment: E,
    /// `key.path=value`, with or without a leading `-D`.
    pub overrides: Vec<String>,
}

/// Every option with its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[allow(missing_docs, reason = "each section's struct has its doc")]
pub struct Configuration {
    pub cluster: o::Cluster,
    pub job_manager: o::JobManager,
    pub rest: o::Rest,
    pub task_manager: o::TaskManager,
    pub rpc: o::Rpc,
    pub heartbeat: o::Heartbeat,
    pub registration: o::Registration,
    pub slot: o::Slot,
    pub job: o::Job,
    pub pipeline: o::Pipeline,
    pub restart: Restart,
    pub exchange: o::Exchange,
    pub metrics: o::Metrics,
    pub host: o::Host,
    pub client: o::Client,
    pub per_job: o::PerJob,
    pub security: o::Security,
    pub log: o::Log,
    pub process: o::Process,
    /// By kind; all kinds are there.
    #[serde(skip)]
    plugins: BTreeMap<String, PluginSection>,
    /// What was given for linked plugins that were not chosen: another process of the cluster may choose them.
    #[serde(skip)]
    others: Table,
    /// Who said so last, by key.
    #[serde(skip)]
    origins: BTreeMap<String, Source>,
    #[serde(skip)]
    advice: Vec<String>,
}

impl Configuration {
    /// Loads, merges and checks. All that is wrong is told at once.
    ///
    /// A chosen plugin must be linked, unless no plugin of its kind is: then this process does not use that kind.
    pub fn load(sources: Sources<impl IntoIterator<Item = (String, String)>>) -> Result<Self, ConfigError> {
        let known = Known::new();
        let mut problems = Vec::new();
        let mut merged = Table::new();
        let mut origins = BTreeMap::new();
        // A section whose options are all left out by default is there nevertheless.
        for (section, _) in known.options.keys().filter_map(|key| key.split_once('.')) {
            if !known.kinds.iter().any(|kind| kind.key == section) {
                merged.entry(section).or_insert_with(|| Value::Table(Table::new()));
            }
        }
        let mut advice = Vec::new();
        for given in layers::read(sources, &known, &mut problems, &mut advice) {
            match given.checked(&known) {
                None => {}
                Some(Ok(value)) => {
                    insert(&mut merged, &given.key, value);
                    origins.insert(given.key, given.source);
                }
                Some(Err(message)) => problems.push(ConfigProblem::at(given.key, &given.source, message)),
            }
        }
        let plugins = choose_plugins(&known, &mut merged, &origins, &mut problems);
        let others = plugins.others;
        let core = merged.try_into::<Configuration>();
        match core {
            Ok(core) => {
                advice.extend(core.restart.advice());
                let whole = Self { plugins: plugins.chosen, others, origins, advice, ..core };
                problems.extend(rules::check(&whole));
                if problems.is_empty() { Ok(whole) } else { Err(ConfigError { problems: sorted(problems) }) }
            }
            Err(error) => {
                // Every leaf was checked by its schema, so without another problem this is a default that is missing.
                if problems.is_empty() {
                    problems.push(ConfigProblem { key: String::new(), source: None, message: error.to_string() });
                }
                Err(ConfigError { problems: sorted(problems) })
            }
        }
    }

    /// The defaults with some overrides, each `key.path=value`: for embedded runs and tests.
    pub fn with(overrides: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, ConfigError> {
        let overrides = overrides.into_iter().map(Into::into).collect();
        Self::load(Sources { file: None, environment: std::iter::empty(), overrides })
    }

    /// Name and options of the chosen plugin of a kind; `None` for a kind that does not exist.
    pub fn section(&self, kind: &str) -> Option<&PluginSection> {
        self.plugins.get(kind)
    }

    /// Name of the chosen plugin of a kind; empty for a kind that does not exist.
    pub fn plugin_name(&self, kind: &str) -> &str {
        self.plugins.get(kind).map_or("", |p| p.name.as_str())
    }

    /// Options of the chosen plugin of a kind, a table.
    pub fn options_of(&self, kind: &str) -> Value {
        self.plugins.get(kind).map_or_else(|| Value::Table(Table::new()), |p| p.options.clone())
    }

    /// Finds and opens the chosen plugin of a kind.
    pub async fn open<K: PluginKind>(&self, context: PluginContext) -> thalweg_spi::Result<Arc<K::Service>>
    where
        Plugin<K>: inventory::Collect,
    {
        let Some(section) = self.plugins.get(K::KEY) else {
            return Err(ServiceError::new(ErrorKind::Internal, "open plugin", "no such kind").with("kind", K::KEY));
        };
        Plugin::<K>::find(&section.name)?.open(section.options.clone(), context).await
    }

    /// Who set this option last.
    pub fn source_of(&self, key: &str) -> Option<&Source> {
        self.origins.get(key)
    }

    /// What is not wrong, but probably not what was meant. Whoever loads at start-up logs it.
    pub fn advice(&self) -> &[String] {
        &self.advice
    }

    /// The keys below these sections that somebody set.
    pub fn set_below<'a>(&'a self, sections: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let below = |key: &&String| key.split_once('.').is_some_and(|(section, _)| sections.contains(&section));
        let set = self.origins.iter().filter(|(_, source)| **source != Source::Default).map(|(key, _)| key);
        set.filter(below).map(String::as_str)
    }

    /// Every option with its value, as a file that `load` reads back. Options that hold secrets are left out, and so are
    /// sections of plugins that are not linked.
    pub fn effective_toml(&self) -> String {
        let mut table = Table::try_from(self).unwrap_or_default();
        let known = Known::new();
        for kind in &known.kinds {
            let Some(chosen) = self.plugins.get(kind.key) else { continue };
            let mut section = Table::new();
            section.insert("type".into(), Value::String(chosen.name.clone()));
            for plugin in &kind.plugins {
                let name = plugin.info.name;
                let given = if name == chosen.name {
                    chosen.options.as_table()
                } else {
                    at(&self.others, &format!("{}.{name}", kind.key)).and_then(Value::as_table)
                };
                let Some(given) = given else { continue };
                let mut options = match Value::try_from(&plugin.info.defaults) {
                    Ok(Value::Table(defaults)) if name == chosen.name => defaults,
                    _ => Table::new(),
                };
                overlay(&mut options, given);
                for secret in plugin.options.iter().filter(|o| o.secret) {
                    remove(&mut options, &secret.key);
                }
                if !options.is_empty() {
                    section.insert(name.into(), Value::Table(options));
                }
            }
            table.insert(kind.key.into(), Value::Table(section));
        }
        toml::to_string(&table).unwrap_or_default()
    }
}

fn sorted(mut problems: Vec<ConfigProblem>) -> Vec<ConfigProblem> {
    problems.sort_by(|a, b| a.key.cmp(&b.key));
    problems
}

fn overlay(below: &mut Table, above: &Table) {
    for (key, value) in above {
        match (below.get_mut(key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            _ => {
                below.insert(key.clone(), value.clone());
            }
        }
    }
}

fn remove(table: &mut Table, key: &str) {
    match key.split_once('.') {
        None => {
            table.remove(key);
        }
        Some((first, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

struct Choice {
    chosen: BTreeMap<String, PluginSection>,
    others: Table,
}

/// Takes the plugin sections out of the merged table and checks what was chosen.
fn choose_plugins(
    known: &Known,
    merged: &mut Table,
    origins: &BTreeMap<String, Source>,
    problems: &mut Vec<ConfigProblem>,
) -> Choice {
    let mut choice = Choice { chosen: BTreeMap::new(), others: Table::new() };
    for kind in &known.kinds {
        let Some(Value::Table(mut section)) = merged.remove(kind.key) else { continue };
        let Some(Value::String(name)) = section.remove("type") else { continue };
        let options = section.remove(&name).unwrap_or_else(|| Value::Table(Table::new()));
        let type_key = format!("{}.type", kind.key);
        let mut wrong = |key: String, message: String| {
            problems.push(ConfigProblem { source: origins.get(&type_key).cloned(), key, message });
        };
        for name in &kind.doubled {
            wrong(
                type_key.clone(),
                format!("{} {name:?} is registered twice in this build: remove one of the crates", kind.key),
            );
        }
        match kind.find(&name) {
            Some(plugin) => {
                if let Err(message) = (plugin.check)(options.clone()) {
                    wrong(format!("{}.{name}", kind.key), message);
                }
            }
            None if kind.plugins.is_empty() => {}
            None => {
                let names: Vec<_> = kind.plugins.iter().map(|p| p.info.name).collect();
                let near = nearest(&name, names.iter().copied());
                let hint = match (LeftOut::remedy(kind.key, &name), near) {
                    (Some(remedy), _) => format!("; {remedy}"),
                    (None, Some(near)) => format!("; did you mean {near:?}?"),
                    (None, None) => String::new(),
                };
                let all = names.join(", ");
                wrong(type_key.clone(), format!("unknown {} {name:?}; this build has: {all}{hint}", kind.key));
            }
        }
        if !section.is_empty() {
            choice.others.insert(kind.key.into(), Value::Table(section));
        }
        choice.chosen.insert(kind.key.into(), PluginSection { name, options });
    }
    choice
}
