//! Reads the layers into one list of (key, value, source), lowest first. It knows nothing of meaning.

use crate::{
    ConfigProblem, DEFAULTS, Source, Sources,
    known::{Known, Lookup},
};
use std::path::Path;
use toml::{Table, Value};

/// One value that somebody wrote.
pub(crate) struct Given {
    pub(crate) key: String,
    pub(crate) value: Value,
    /// It came as text and takes the form of its option.
    pub(crate) text: bool,
    pub(crate) source: Source,
}

/// The prefix of our environment variables. `THALWEG_CONF` and the like, with one `_`, are no options.
const PREFIX: &str = "THALWEG__";

/// Every layer, lowest first; what nobody wrote as an option but probably meant as one goes to `advice`.
pub(crate) fn read(
    sources: Sources<impl IntoIterator<Item = (String, String)>>,
    known: &Known,
    problems: &mut Vec<ConfigProblem>,
    advice: &mut Vec<String>,
) -> Vec<Given> {
    let mut given = Vec::new();
    match toml::from_str::<Table>(DEFAULTS) {
        Ok(table) => flatten(table, "", known, &Source::Default, &mut given),
        Err(error) => problems.push(ConfigProblem::at("", &Source::Default, error.message())),
    }
    if let Some(path) = &sources.file {
        let source = Source::File(path.clone());
        match read_file(path) {
            Ok(table) => flatten(table, "", known, &source, &mut given),
            Err(message) => problems.push(ConfigProblem::at("", &source, message)),
        }
    }
    let (mut variables, others): (Vec<_>, Vec<_>) =
        sources.environment.into_iter().partition(|(name, _)| name.starts_with(PREFIX));
    variables.sort();
    advice.extend(others.iter().filter_map(|(name, text)| almost(name, text, known)));
    for (name, text) in variables {
        let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".").replace('_', "-");
        given.push(Given { key, value: Value::String(text), text: true, source: Source::Environment(name) });
    }
    for text in sources.overrides {
        let text = text.strip_prefix("-D").map(str::to_owned).unwrap_or(text);
        let source = Source::Override(text.clone());
        match text.split_once('=') {
            Some((key, value)) => given.push(Given {
                key: key.trim().to_owned(),
                value: Value::String(value.trim().to_owned()),
                text: true,
                source,
            }),
            None => problems.push(ConfigProblem::at("", &source, "has no value: write -Dkey.path=value")),
        }
    }
    given
}

/// A variable with a single underscore where there must be two that spells an option's key and has a value for it. Not
/// refused: Kubernetes makes such names of its services'.
fn almost(name: &str, text: &str, known: &Known) -> Option<String> {
    let spelt = name.strip_prefix("THALWEG_")?.to_ascii_lowercase().replace("__", "_");
    let (key, _) = known
        .options
        .iter()
        .find(|(key, option)| key.replace(['.', '-'], "_") == spelt && option.form.read(text).is_ok())?;
    let right = format!("{PREFIX}{}", key.replace('.', "__").replace('-', "_").to_ascii_uppercase());
    Some(format!("the environment variable {name} is no option and has no effect: {key} is set by {right}"))
}

fn read_file(path: &Path) -> Result<Table, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))?;
    toml::from_str(&text).map_err(|e| {
        let line = e.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let place = line.map(|l| format!("line {l}: ")).unwrap_or_default();
        format!("{place}not TOML: {}", e.message())
    })
}

/// The leaves of a table. An option that is itself a map is one leaf, and so is a section that stands empty.
fn flatten(table: Table, prefix: &str, known: &Known, source: &Source, given: &mut Vec<Given>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) if !inner.is_empty() && !known.is_option(&key) => {
                flatten(inner, &key, known, source, given);
            }
            Value::Table(inner) if inner.is_empty() && known.is_section(&key) => {}
            value => given.push(Given { key, value, text: false, source: source.clone() }),
        }
    }
}

impl Given {
    /// The value in its option's form, or what is wrong with it; `None` when it is a foreign plugin's.
    pub(crate) fn checked(&self, known: &Known) -> Option<Result<Value, String>> {
        match known.look_up(&self.key) {
            Lookup::Known(option) => Some(match (&self.value, self.text) {
                (Value::String(text), true) => option.form.read(text),
                (value, _) => option.form.check(value).map(|()| value.clone()),
            }),
            Lookup::Within(option) => Some(match (&self.value, self.text) {
                (Value::String(text), true) => option.form.read(text),
                (value, _) => Ok(value.clone()),
            }),
            Lookup::Foreign => None,
            Lookup::Unknown(message) => Some(Err(message)),
        }
    }
}

/// Puts a value where its key says, making the tables on the way.
pub(crate) fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// The value at a key.
pub(crate) fn at<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((first, rest)) => at(table.get(first)?.as_table()?, rest),
    }
}
