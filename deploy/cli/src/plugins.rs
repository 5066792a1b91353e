//! `thalweg plugins`: what is linked, with every option.

use crate::exit::Exit;

/// Prints them.
pub fn run(json: bool) -> anyhow::Result<Exit> {
    let plugins = thalweg_config::plugins();
    if json {
        println!("{}", serde_json::to_string_pretty(&plugins)?);
        return Ok(Exit::Ok);
    }
    for plugin in plugins {
        let experimental = if plugin.experimental { "  (experimental)" } else { "" };
        println!("{} {:?}{experimental}: {}", plugin.kind, plugin.name, plugin.summary);
        let options = plugin.schema.get("properties").and_then(|p| p.as_object()).cloned().unwrap_or_default();
        for (name, schema) in options {
            let default =
                plugin.defaults.get(&name).filter(|d| !d.is_null()).map(|d| format!(" = {d}")).unwrap_or_default();
            let doc = schema.get("description").and_then(|d| d.as_str()).unwrap_or_default().replace('\n', " ");
            println!("    {}.{}.{name}{default}\n        {doc}", plugin.kind, plugin.name);
        }
    }
    Ok(Exit::Ok)
}
