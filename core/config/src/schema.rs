//! A JSON schema as a flat list of options: what a value of each may be. It is what text from the environment and from
//! flags is read by, what values are checked against, and what the reference is printed from.

use serde_json::Value as Json;
use thalweg_spi::{ByteSize, TimeSpan};
use toml::Value;

/// What a value may be.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// `true` or `false`.
    Bool,
    /// A whole number within these bounds.
    Integer(Option<i64>, Option<i64>),
    /// A number within these bounds.
    Number(Option<f64>, Option<f64>),
    /// `"10s"`.
    Duration,
    /// `"64MiB"`.
    Size,
    /// One of these texts.
    Choice(Vec<String>),
    /// Any text.
    Text,
    /// Anything else: lists and maps. Whoever owns the option checks it.
    Other,
}

/// One option.
#[derive(Debug, Clone, PartialEq)]
pub struct OptionInfo {
    /// `rest.port`, or relative to a plugin's section.
    pub key: String,
    /// What a value may be.
    pub form: Form,
    /// Its doc comment, one line.
    pub doc: String,
    /// It may be left out.
    pub optional: bool,
    /// Its value is never shown.
    pub secret: bool,
}

/// The options of a struct's schema, in the order of their keys.
pub fn options(schema: &Json) -> Vec<OptionInfo> {
    let mut found = Vec::new();
    collect(schema, schema, "", &mut found);
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found
}

/// Follows `$ref`, and looks through what `Option<T>` and a doc comment beside a reference become.
fn resolve<'a>(root: &'a Json, node: &'a Json) -> (&'a Json, bool) {
    let mut node = node;
    let mut optional = false;
    // A bound, because a schema that refers to itself must not hang the start.
    for _ in 0..16 {
        if let Some(target) = node.get("$ref").and_then(Json::as_str) {
            match target.strip_prefix('#').and_then(|path| root.pointer(path)) {
                Some(next) => node = next,
                None => break,
            }
        } else if let Some(one) = node.get("allOf").and_then(Json::as_array).and_then(|all| all.first()) {
            node = one;
        } else if let Some(any) = node.get("anyOf").and_then(Json::as_array) {
            let real: Vec<_> = any.iter().filter(|n| n.get("type").and_then(Json::as_str) != Some("null")).collect();
            match real.as_slice() {
                [one] => (node, optional) = (one, true),
                _ => break,
            }
        } else {
            break;
        }
    }
    (node, optional)
}

fn collect(root: &Json, node: &Json, prefix: &str, found: &mut Vec<OptionInfo>) {
    let Some(properties) = node.get("properties").and_then(Json::as_object) else { return };
    for (name, property) in properties {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let (target, optional) = resolve(root, property);
        if target.get("properties").is_some() {
            collect(root, target, &key, found);
            continue;
        }
        let (form, nullable) = form_of(target);
        let doc = property.get("description").or_else(|| target.get("description"));
        let doc = doc.and_then(Json::as_str).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let secret = property.get("writeOnly").and_then(Json::as_bool).unwrap_or(false);
        found.push(OptionInfo { key, form, doc, optional: optional || nullable, secret });
    }
}

fn form_of(node: &Json) -> (Form, bool) {
    let choices = |list: &Vec<Json>, of: fn(&Json) -> Option<&str>| {
        list.iter().map(|v| of(v).map(str::to_owned)).collect::<Option<Vec<_>>>()
    };
    if let Some(all) = node.get("oneOf").and_then(Json::as_array).and_then(|l| {
        // A variant with a doc comment is a `const`, those without stand together in one `enum`.
        let mut names = Vec::new();
        for one in l {
            match (one.get("const").and_then(Json::as_str), one.get("enum").and_then(Json::as_array)) {
                (Some(name), _) => names.push(name.to_owned()),
                (None, Some(list)) => names.extend(choices(list, |v| v.as_str())?),
                (None, None) => return None,
            }
        }
        Some(names)
    }) {
        return (Form::Choice(all), false);
    }
    if let Some(all) = node.get("enum").and_then(Json::as_array) {
        let texts: Vec<_> = all.iter().filter(|v| !v.is_null()).cloned().collect();
        if let Some(names) = choices(&texts, |v| v.as_str()) {
            return (Form::Choice(names), texts.len() < all.len());
        }
    }
    let (kind, nullable) = match node.get("type") {
        Some(Json::String(kind)) => (kind.as_str(), false),
        Some(Json::Array(kinds)) => {
            let mut real = kinds.iter().filter_map(Json::as_str).filter(|k| *k != "null");
            let first = real.next().unwrap_or_default();
            (if real.next().is_some() { "" } else { first }, kinds.iter().any(|k| k == "null"))
        }
        _ => ("", false),
    };
    let bound = |key| node.get(key).and_then(|b: &Json| b.as_i64().or_else(|| b.as_f64().map(|f| f as i64)));
    let exact = |key| node.get(key).and_then(Json::as_f64);
    let format = node.get("format").and_then(Json::as_str).unwrap_or_default();
    let form = match (kind, format) {
        ("boolean", _) => Form::Bool,
        ("integer", format) => {
            // schemars writes bounds of the small types alone.
            let (low, high) = match format {
                "uint32" => (Some(0), Some(i64::from(u32::MAX))),
                "uint64" | "uint" => (Some(0), None),
                _ => (None, None),
            };
            Form::Integer(bound("minimum").or(low), bound("maximum").or(high))
        }
        ("number", _) => Form::Number(exact("minimum"), exact("maximum")),
        ("string", "duration") => Form::Duration,
        ("string", "size") => Form::Size,
        ("string", _) => Form::Text,
        _ => Form::Other,
    };
    (form, nullable)
}

impl Form {
    /// For the reference: *duration*, *1 to 1024*, *"text" or "json"*.
    pub fn describe(&self) -> String {
        match self {
            Self::Bool => "true or false".into(),
            Self::Integer(low, high) => bounds("whole number", low.as_ref(), high.as_ref()),
            Self::Number(low, high) => bounds("number", low.as_ref(), high.as_ref()),
            Self::Duration => "duration".into(),
            Self::Size => "size".into(),
            Self::Choice(names) => either(names),
            Self::Text => "text".into(),
            Self::Other => "list or table".into(),
        }
    }

    /// The value that a text from the environment or a flag means.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let value = match self {
            Self::Bool => {
                text.parse().map(Value::Boolean).map_err(|_| format!("{text:?} is neither true nor false"))?
            }
            Self::Integer(..) => {
                text.parse().map(Value::Integer).map_err(|_| format!("{text:?} is not a {}", self.describe()))?
            }
            Self::Number(..) => {
                text.parse().map(Value::Float).map_err(|_| format!("{text:?} is not a {}", self.describe()))?
            }
            Self::Duration | Self::Size | Self::Choice(_) | Self::Text => Value::String(text.to_owned()),
            Self::Other => {
                // As TOML where it is TOML, so that a list can be given; else it is text.
                let line = toml::from_str::<toml::Table>(&format!("v = {text}"));
                line.ok().and_then(|mut t| t.remove("v")).unwrap_or_else(|| Value::String(text.to_owned()))
            }
        };
        self.check(&value)?;
        Ok(value)
    }

    /// Is this a value of this form? Says what would be.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let bare = match value {
            Value::Integer(n) => Some(n.to_string()),
            Value::Float(x) => Some(x.to_string()),
            _ => None,
        };
        match (self, value) {
            (Self::Bool, Value::Boolean(_)) | (Self::Text, Value::String(_)) | (Self::Other, _) => Ok(()),
            (Self::Duration, Value::String(text)) => text.parse::<TimeSpan>().map(drop),
            (Self::Size, Value::String(text)) => text.parse::<ByteSize>().map(drop),
            (Self::Duration, _) if bare.is_some() => {
                let bare = bare.unwrap_or_default();
                Err(format!("a duration needs a unit: write {} instead of {bare}", TimeSpan::instead_of(&bare)))
            }
            (Self::Size, _) if bare.is_some() => {
                let bare = bare.unwrap_or_default();
                Err(format!("a size needs a unit: write {} instead of {bare}", ByteSize::instead_of(&bare)))
            }
            (Self::Choice(names), Value::String(text)) => {
                if names.iter().any(|n| n == text) {
                    return Ok(());
                }
                let near = crate::nearest::nearest(text, names.iter().map(String::as_str));
                let hint = near.map(|n| format!("; did you mean {n:?}?")).unwrap_or_default();
                Err(format!("{text:?} is not one of {}{hint}", either(names)))
            }
            (Self::Integer(low, high), Value::Integer(n)) => within(*n, *low, *high),
            (Self::Number(low, high), Value::Float(x)) => within(*x, *low, *high),
            (Self::Number(low, high), Value::Integer(n)) => within(*n as f64, *low, *high),
            (Self::Text, _) => Err(format!("{value} is not text: write \"{}\"", value.to_string().trim_matches('"'))),
            _ => Err(format!("{value} is not a value for it: expected {}", self.describe())),
        }
    }
}

/// `"a", "b" or "c"`.
fn either(names: &[String]) -> String {
    match names {
        [] => "nothing".into(),
        [one] => format!("{one:?}"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(|n| format!("{n:?}")).collect();
            format!("{} or {last:?}", first.join(", "))
        }
    }
}

fn bounds<N: std::fmt::Display>(what: &str, low: Option<&N>, high: Option<&N>) -> String {
    match (low, high) {
        (Some(low), Some(high)) => format!("{what} from {low} to {high}"),
        (Some(low), None) => format!("{what} of at least {low}"),
        (None, Some(high)) => format!("{what} of at most {high}"),
        (None, None) => what.to_owned(),
    }
}

fn within<N: PartialOrd + std::fmt::Display + Copy>(n: N, low: Option<N>, high: Option<N>) -> Result<(), String> {
    // Written so that NaN, which is within nothing, is refused.
    let good = low.is_none_or(|low| n >= low) && high.is_none_or(|high| n <= high) && n.partial_cmp(&n).is_some();
    if good {
        Ok(())
    } else {
        Err(format!("{n} is out of range: {}", bounds("it is a number", low.as_ref(), high.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_their_form_doc_and_bounds() {
        #[derive(schemars::JsonSchema)]
        #[allow(dead_code, reason = "only its schema is looked at")]
        #[serde(rename_all = "kebab-case")]
        struct Inner {
            /// How many.
            #[schemars(range(min = 1, max = 9))]
            how_many: u32,
        }
        #[derive(schemars::JsonSchema)]
        #[allow(dead_code, reason = "only its schema is looked at")]
        #[serde(rename_all = "kebab-case")]
        enum Choice {
            /// One.
            A,
            B,
        }
        #[derive(schemars::JsonSchema)]
        #[allow(dead_code, reason = "only its schema is looked at")]
        struct Outer {
            inner: Inner,
            /// When.
            when: Option<TimeSpan>,
            size: ByteSize,
            /// Which.
            choice: Choice,
            maybe: Option<Choice>,
            #[schemars(extend("writeOnly" = true))]
            key: Option<String>,
            list: Vec<String>,
            path: std::path::PathBuf,
            small: u16,
        }
        let all = options(&schemars::schema_for!(Outer).to_value());
        let get = |key: &str| all.iter().find(|o| o.key == key).unwrap();
        assert_eq!(get("inner.how-many").form, Form::Integer(Some(1), Some(9)));
        assert_eq!(get("inner.how-many").doc, "How many.");
        assert_eq!(
            (&get("when").form, get("when").optional, get("when").doc.as_str()),
            (&Form::Duration, true, "When.")
        );
        assert_eq!((&get("size").form, get("size").optional), (&Form::Size, false));
        let mut names = ["A".to_owned(), "B".to_owned()];
        names.iter_mut().for_each(|n| n.make_ascii_lowercase());
        let Form::Choice(got) = &get("choice").form else { panic!("{:?}", get("choice")) };
        assert_eq!(got.iter().collect::<std::collections::BTreeSet<_>>(), names.iter().collect());
        assert_eq!(get("choice").doc, "Which.");
        assert!(matches!(get("maybe").form, Form::Choice(_)) && get("maybe").optional);
        assert!(get("key").secret && get("key").optional);
        assert_eq!((&get("list").form, &get("path").form), (&Form::Other, &Form::Text));
        assert_eq!(get("small").form, Form::Integer(Some(0), Some(65535)));
    }

    #[test]
    fn values_out_of_form_say_what_would_be_in_form() {
        let check = |form: &Form, value: Value| form.check(&value).unwrap_err();
        assert_eq!(
            check(&Form::Duration, Value::Integer(10)),
            "a duration needs a unit: write \"10ms\" or \"10s\" or \"10min\" instead of 10"
        );
        assert!(check(&Form::Size, Value::Integer(64)).contains("\"64MiB\""));
        let range = check(&Form::Integer(Some(1), Some(9)), Value::Integer(10));
        assert_eq!(range, "10 is out of range: it is a number from 1 to 9");
        let choice = Form::Choice(vec!["text".into(), "json".into()]);
        assert_eq!(
            check(&choice, Value::String("jsn".into())),
            "\"jsn\" is not one of \"text\" or \"json\"; did you mean \"json\"?"
        );
        assert!(check(&Form::Number(Some(0.0), None), Value::Float(f64::NAN)).contains("out of range"));
        assert_eq!(check(&Form::Text, Value::Integer(5)), "5 is not text: write \"5\"");
        assert_eq!(Form::Other.read("[1, 2]").unwrap().as_array().unwrap().len(), 2);
        assert_eq!(Form::Other.read("a b").unwrap().as_str(), Some("a b"));
        assert!(Form::Bool.read("yes").unwrap_err().contains("neither true nor false"));
    }
}
