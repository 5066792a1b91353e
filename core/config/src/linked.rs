//! The plugins that are linked into this executable, seen without their types.

use crate::schema::{OptionInfo, options};
use thalweg_spi::{Plugin, PluginInfo, PluginKind, inventory, kind};

/// One linked plugin.
pub(crate) struct Linked {
    /// Name, summary, schema, defaults.
    pub(crate) info: PluginInfo,
    /// Its options, relative to its section.
    pub(crate) options: Vec<OptionInfo>,
    /// Are these options good?
    pub(crate) check: Box<dyn Fn(toml::Value) -> Result<(), String>>,
}

/// One kind with its plugins, by name.
pub(crate) struct Kind {
    /// Its section.
    pub(crate) key: &'static str,
    /// May be empty: an embedded job links no resource provider.
    pub(crate) plugins: Vec<Linked>,
    /// Names that more than one crate registered.
    pub(crate) doubled: Vec<&'static str>,
}

impl Kind {
    /// The plugin with this name.
    pub(crate) fn find(&self, name: &str) -> Option<&Linked> {
        self.plugins.iter().find(|p| p.info.name == name)
    }
}

/// All kinds, in the order in which the reference shows them.
pub(crate) fn kinds() -> Vec<Kind> {
    let mut resource = of::<kind::Resource>();
    // A technology's two sides share name, section and options; one that has only a launcher is listed too.
    for launcher in of::<kind::Launcher>().plugins {
        if resource.find(launcher.info.name).is_none() {
            resource.plugins.push(launcher);
        }
    }
    resource.plugins.sort_by_key(|p| p.info.name);
    vec![
        of::<kind::HighAvailability>(),
        of::<kind::ShuffleKind>(),
        of::<kind::Blob>(),
        resource,
        of::<kind::Deployment>(),
    ]
}

fn of<K: PluginKind>() -> Kind
where
    Plugin<K>: inventory::Collect,
{
    let mut kind = Kind { key: K::KEY, plugins: Vec::new(), doubled: Vec::new() };
    for plugin in Plugin::<K>::all() {
        if kind.find(plugin.name).is_some() {
            kind.doubled.push(plugin.name);
            continue;
        }
        let info = plugin.info();
        let options = options(&info.schema);
        kind.plugins.push(Linked { info, options, check: Box::new(|options| plugin.check(options)) });
    }
    kind
}
