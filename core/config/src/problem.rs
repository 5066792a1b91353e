//! What is wrong with a configuration, told so that the person who wrote it knows where and what to write instead.

use std::{fmt, path::PathBuf};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Compiled in.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// This `-D` argument.
    Override(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("compiled-in default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Override(text) => write!(f, "-D{text}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The option, like `rest.port`; empty when it is not about one.
    pub key: String,
    /// Where it was written; `None` when it is about several.
    pub source: Option<Source>,
    /// What is wrong and what to do.
    pub message: String,
}

impl ConfigProblem {
    /// A problem of one option.
    pub fn at(key: impl Into<String>, source: &Source, message: impl Into<String>) -> Self {
        Self { key: key.into(), source: Some(source.clone()), message: message.into() }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), &self.source) {
            ("", Some(source)) => write!(f, "{source}: {}", self.message),
            ("", None) => f.write_str(&self.message),
            (key, Some(source)) => write!(f, "{key} ({source}): {}", self.message),
            (key, None) => write!(f, "{key}: {}", self.message),
        }
    }
}

/// All that is wrong, so that nobody has to start five times to mend five typing errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order of the keys.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigError {}
