//! Each plugin is named by the bundle and runs the suite of its kind.

use crate::workspace::{Crate, Source};

/// A plugin's kind and name, from its folder; `None` for what is none.
pub fn kind_and_name(folder: &str) -> Option<(&str, &str)> {
    let mut parts = folder.strip_prefix("plugins/")?.split('/');
    let (kind, name) = (parts.next()?, parts.next()?);
    (kind != "support" && parts.next().is_none()).then_some((kind, name))
}

/// Plugins that the bundle does not name: as a dependency, with a feature (in `all`, or in `foreign` if a foreign tool is
/// needed to build it), and with a line that links it.
pub fn unbundled(crates: &[Crate], bundle_manifest: &str, bundle_source: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for plugin in crates {
        let Some((kind, name)) = kind_and_name(&plugin.folder) else { continue };
        let feature = format!("{kind}-{name}");
        let crate_name = plugin.name.replace('-', "_");
        let line = format!("#[cfg(feature = \"{feature}\")]\nuse {crate_name} as _;");
        let manifest: toml::Table = toml::from_str(bundle_manifest).unwrap_or_default();
        let has = |section: &str, key: &str| manifest.get(section).and_then(|s| s.get(key)).is_some();
        let lists = |list: &str| {
            let list = manifest.get("features").and_then(|f| f.get(list)).and_then(|list| list.as_array());
            list.is_some_and(|list| list.iter().any(|f| f.as_str() == Some(&feature)))
        };
        let in_all = lists("all") || lists("foreign");
        for (good, what) in [
            (has("dependencies", &plugin.name), format!("no dependency {}", plugin.name)),
            (has("features", &feature), format!("no feature {feature}")),
            (in_all, format!("feature {feature} is not in `all`")),
            (bundle_source.contains(&line), format!("no line `use {crate_name} as _;` behind its feature")),
        ] {
            if !good {
                wrong.push(format!("plugins/bundle: {what}, so {kind} {name:?} may not be linked"));
            }
        }
    }
    wrong
}

/// Plugins none of whose tests runs the suite of their kind.
pub fn without_suite(crates: &[Crate], sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    let template = |folder: &str| (folder == "plugins/template").then_some("blob");
    for plugin in crates {
        let kind = kind_and_name(&plugin.folder).map(|(kind, _)| kind).or_else(|| template(&plugin.folder));
        let Some(kind) = kind else { continue };
        let call = format!("{}_suite!(", kind.replace('-', "_"));
        let tests = format!("{}/tests/", plugin.folder);
        let code = |line: &str| line.contains(&call) && !line.trim_start().starts_with("//");
        if !sources.iter().any(|s| s.path.starts_with(&tests) && s.text.lines().any(code)) {
            wrong.push(format!(
                "{} does not run its conformance suite: {call}…) stands in none of its tests",
                plugin.folder
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(folder: &str) -> Crate {
        let (kind, name) = kind_and_name(folder).unwrap();
        Crate { name: format!("thalweg-{kind}-{name}"), folder: folder.into(), arrows: vec![] }
    }

    #[test]
    fn a_plugin_that_the_bundle_does_not_name_is_found() {
        let crates = [plugin("plugins/blob/local")];
        let manifest = "[features]\nall = [\"blob-local\"]\nblob-local = []\n[dependencies]\nthalweg-blob-local = {}";
        let source = "#[cfg(feature = \"blob-local\")]\nuse thalweg_blob_local as _;";
        assert_eq!(unbundled(&crates, manifest, source), Vec::<String>::new());
        assert_eq!(unbundled(&crates, &manifest.replace("all =", "foreign ="), source), Vec::<String>::new());
        assert_eq!(unbundled(&crates, manifest, "use thalweg_blob_local as _;").len(), 1);
        assert!(
            unbundled(&crates, &manifest.replace("all = [\"blob-local\"]", ""), source)[0].contains("not in `all`")
        );
        assert_eq!(unbundled(&crates, "", "").len(), 4);
        assert_eq!(kind_and_name("plugins/support/processes"), None);
        assert_eq!(kind_and_name("plugins/bundle"), None);
    }

    #[test]
    fn a_plugin_without_its_suite_is_found() {
        let crates = [plugin("plugins/resource-provider/process")];
        let test = |path: &str, text: &str| {
            let source = Source { path: path.into(), text: text.into() };
            without_suite(&crates, &[source]).len()
        };
        let path = "plugins/resource-provider/process/tests/c.rs";
        assert_eq!(test(path, "thalweg_testkit::resource_provider_suite!(async || F);"), 0);
        assert_eq!(test(path, "// thalweg_testkit::resource_provider_suite!(async || F);"), 1);
        assert_eq!(test(path, "thalweg_testkit::blob_suite!(async || F);"), 1);
        assert_eq!(test("plugins/blob/local/tests/c.rs", "resource_provider_suite!()"), 1);
    }
}
