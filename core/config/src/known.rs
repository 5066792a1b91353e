//! Which keys there are: the core's options, each kind's `type`, and the options of the linked plugins.

use crate::{
    Configuration, flink,
    linked::{Kind, kinds},
    nearest::nearest,
    schema::{Form, OptionInfo, options},
};
use std::collections::BTreeMap;

/// Every known option by its whole key.
pub(crate) struct Known {
    pub(crate) options: BTreeMap<String, OptionInfo>,
    pub(crate) kinds: Vec<Kind>,
}

/// What a key turned out to be.
pub(crate) enum Lookup<'a> {
    /// An option.
    Known(&'a OptionInfo),
    /// A part of an option that is a map: the option's key, and the rest.
    Within(&'a OptionInfo),
    /// An option of a plugin that is not linked: somebody else's business.
    Foreign,
    /// Nothing: the message says what it may have been.
    Unknown(String),
}

impl Known {
    pub(crate) fn new() -> Self {
        let core = schemars::schema_for!(Configuration).to_value();
        let mut all: Vec<OptionInfo> = options(&core);
        let kinds = kinds();
        for kind in &kinds {
            all.push(OptionInfo {
                key: format!("{}.type", kind.key),
                form: Form::Text,
                doc: "Name of the plugin.".into(),
                optional: false,
                secret: false,
            });
            for plugin in &kind.plugins {
                let whole = |o: &OptionInfo| OptionInfo {
                    key: format!("{}.{}.{}", kind.key, plugin.info.name, o.key),
                    ..o.clone()
                };
                all.extend(plugin.options.iter().map(whole));
            }
        }
        Self { options: all.into_iter().map(|o| (o.key.clone(), o)).collect(), kinds }
    }

    /// Is this the key of an option that holds lists and maps?
    pub(crate) fn is_option(&self, key: &str) -> bool {
        self.options.contains_key(key)
    }

    /// Is this the beginning of known keys, such as `rest`, or a section that may stand empty?
    pub(crate) fn is_section(&self, key: &str) -> bool {
        let prefix = format!("{key}.");
        let plugin = |kind: &Kind| key.strip_prefix(kind.key).is_some_and(|rest| rest.starts_with('.'));
        self.options.range(prefix.clone()..).next().is_some_and(|(k, _)| k.starts_with(&prefix))
            || self.kinds.iter().any(plugin)
    }

    pub(crate) fn look_up(&self, key: &str) -> Lookup<'_> {
        if let Some(option) = self.options.get(key) {
            return Lookup::Known(option);
        }
        for (at, _) in key.match_indices('.') {
            if let Some(option) = self.options.get(&key[..at]).filter(|o| o.form == Form::Other) {
                return Lookup::Within(option);
            }
        }
        for kind in &self.kinds {
            let rest = key.strip_prefix(kind.key).and_then(|rest| rest.strip_prefix('.'));
            if let Some((name, _)) = rest.and_then(|rest| rest.split_once('.')) {
                return match kind.find(name) {
                    None => Lookup::Foreign,
                    Some(_) => Lookup::Unknown(self.unknown(key)),
                };
            }
        }
        Lookup::Unknown(self.unknown(key))
    }

    fn unknown(&self, key: &str) -> String {
        if let Some(message) = flink::instead_of(key) {
            return message;
        }
        match nearest(key, self.options.keys().map(String::as_str)) {
            Some(near) => format!("unknown option; did you mean {near}?"),
            None => "unknown option; `thalweg config reference` lists all".into(),
        }
    }
}
