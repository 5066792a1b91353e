//! One kind's choice: the plugin's name and its options, in a form that travels to another process as text.

use toml::{Table, Value};

/// `type` and options of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginSection {
    /// The plugin's name.
    pub name: String,
    /// A table, as `thalweg_spi::Plugin::open` takes it.
    pub options: Value,
}

impl PluginSection {
    /// As TOML text: `type = "network"` and the options below `[network]`.
    pub fn to_toml(&self) -> String {
        let mut table = Table::new();
        table.insert("type".into(), Value::String(self.name.clone()));
        table.insert(self.name.clone(), self.options.clone());
        // A table of strings, numbers and tables cannot fail to print.
        toml::to_string(&table).unwrap_or_default()
    }

    /// What [`PluginSection::to_toml`] wrote.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let mut table: Table = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        let Some(Value::String(name)) = table.remove("type") else {
            return Err("the section has no type".into());
        };
        let options = table.remove(&name).unwrap_or_else(|| Value::Table(Table::new()));
        Ok(Self { name, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_travels_as_text() {
        let options = toml::from_str::<Table>("a = 1\n[b]\nc = \"x\"").unwrap();
        let section = PluginSection { name: "network".into(), options: Value::Table(options) };
        assert_eq!(PluginSection::from_toml(&section.to_toml()), Ok(section));
        let bare = PluginSection::from_toml("type = \"local\"").unwrap();
        assert_eq!(bare.options, Value::Table(Table::new()));
        assert!(PluginSection::from_toml("a = 1").unwrap_err().contains("no type"));
        assert!(PluginSection::from_toml("a = ").is_err());
    }
}
