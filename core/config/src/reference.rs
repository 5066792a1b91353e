//! The reference: every option with its default, what it takes and what it does, as Markdown.

use crate::{
    Configuration, DEFAULTS,
    layers::at,
    linked::{Linked, kinds},
    schema::{OptionInfo, options},
};
use std::fmt::Write as _;
use thalweg_spi::PluginInfo;
use toml::{Table, Value};

const HEAD: &str = "<!-- Generated from the option structs: `UPDATE=1 cargo test -p thalweg-bundle` writes it anew. -->
# Configuration reference

Order of weight: compiled-in defaults (`conf/default.toml`) < file (`-c FILE`) < environment (`THALWEG__A_B__C` is
`a-b.c`) < `-Da-b.c=value`. Durations carry a unit (`100ms`, `10s`, `5min`, `2h`, `1d`) and so do sizes (`512B`, `32KiB`,
`64MiB`, `1GiB`). An unknown key is refused, except in sections of plugins that are neither linked nor chosen.
";

/// All plugins that are linked into this executable, by kind and name.
pub fn plugins() -> Vec<PluginInfo> {
    kinds().into_iter().flat_map(|kind| kind.plugins).map(|plugin| plugin.info).collect()
}

/// The reference of the core and of every linked plugin. It depends on nothing but what is linked.
pub fn reference() -> String {
    let mut out = HEAD.to_owned();
    let schema = schemars::schema_for!(Configuration).to_value();
    let defaults: Table = toml::from_str(DEFAULTS).unwrap_or_default();
    let all = options(&schema);
    let sections = all.iter().filter_map(|o| o.key.split_once('.')).map(|(section, _)| section);
    let mut sections: Vec<_> = sections.collect();
    sections.dedup();
    for section in sections {
        let prefix = format!("{section}.");
        let of_section: Vec<_> = all.iter().filter(|o| o.key.starts_with(&prefix)).cloned().collect();
        let _ = writeln!(out, "\n## `[{section}]`\n\n{}", section_doc(&schema, section));
        table(&mut out, &of_section, |o| at(&defaults, &o.key).cloned());
    }
    for kind in kinds() {
        let chosen = at(&defaults, &format!("{}.type", kind.key)).and_then(Value::as_str).unwrap_or_default();
        let _ = writeln!(out, "\n## `[{}]`\n\n`type` chooses the plugin; left out it is `\"{chosen}\"`.", kind.key);
        for plugin in &kind.plugins {
            plugin_reference(&mut out, kind.key, plugin);
        }
    }
    out
}

fn plugin_reference(out: &mut String, kind: &str, plugin: &Linked) {
    let info = &plugin.info;
    let mark = if info.experimental { " *(experimental)*" } else { "" };
    let _ = writeln!(out, "\n### `[{kind}.{}]`{mark}\n\n{}", info.name, info.summary);
    if plugin.options.is_empty() {
        let _ = writeln!(out, "\nIt has no options.");
        return;
    }
    let prefix = format!("{kind}.{}.", info.name);
    let whole: Vec<_> =
        plugin.options.iter().map(|o| OptionInfo { key: format!("{prefix}{}", o.key), ..o.clone() }).collect();
    let defaults = Value::try_from(&info.defaults).ok();
    table(out, &whole, |o| at(defaults.as_ref()?.as_table()?, o.key.strip_prefix(&prefix)?).cloned());
}

fn section_doc(schema: &serde_json::Value, section: &str) -> String {
    let property = &schema["properties"][section];
    let target = property["$ref"].as_str().and_then(|r| schema.pointer(r.trim_start_matches('#'))).unwrap_or(property);
    let text = property["description"].as_str().or_else(|| target["description"].as_str()).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn table(out: &mut String, options: &[OptionInfo], default: impl Fn(&OptionInfo) -> Option<Value>) {
    let _ = writeln!(out, "\n| option | default | takes | what it does |\n|---|---|---|---|");
    for o in options {
        let default = default(o).map_or_else(|| "–".to_owned(), |v| format!("`{v}`"));
        let secret = if o.secret { " It is a secret, and never shown." } else { "" };
        let (takes, doc) = (o.form.describe().replace('|', "\\|"), o.doc.replace('|', "\\|"));
        let _ = writeln!(out, "| `{}` | {default} | {takes} | {doc}{secret} |", o.key);
    }
}
