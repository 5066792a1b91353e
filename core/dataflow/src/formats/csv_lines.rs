//! CSV of one record a line: a quoted field may hold delimiters and quotes, but no line break, since files are read by
//! several readers, which cut them at line breaks. Fields become a type by serde.

use super::Format;
use csv::StringRecord;
use csv_core::{ReadFieldResult, Reader, ReaderBuilder, Terminator};
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// How CSV is written.
#[derive(Clone, Debug)]
pub struct CsvOptions {
    delimiter: u8,
    columns: Option<StringRecord>,
    skip_headers: bool,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: b',', columns: None, skip_headers: false }
    }
}

impl CsvOptions {
    /// Commas, and fields that go by their position.
    pub fn new() -> Self {
        Self::default()
    }

    /// What stands between fields, an ASCII character.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// The names of the columns, in the order of the file: a struct's fields are found by name, columns that it does not
    /// have are left out, and a line of more or fewer fields is a bad one.
    pub fn columns<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        let mut columns = StringRecord::new();
        names.into_iter().for_each(|name| columns.push_field(name.as_ref()));
        self.columns = Some(columns);
        self
    }

    /// Lines whose fields are the names of the columns are headers and no records, wherever they stand.
    pub fn skip_headers(mut self) -> Self {
        self.skip_headers = true;
        self
    }

    /// Whether lines can be read so.
    pub fn check(&self) -> Result<(), String> {
        let delimiter = self.delimiter;
        if !delimiter.is_ascii() || matches!(delimiter, b'"' | b'\n' | b'\r') {
            return Err(format!(
                "CSV fields cannot be delimited by byte {delimiter}: take an ASCII character, not a quote"
            ));
        }
        if self.skip_headers && self.columns.is_none() {
            return Err("skip_headers() knows a header by the names of the columns: give columns([…]) too".to_owned());
        }
        Ok(())
    }
}

/// Each line is a CSV record.
pub struct Csv<T> {
    options: CsvOptions,
    reader: Reader,
    fields: StringRecord,
    buffer: Vec<u8>,
    _t: PhantomData<fn() -> T>,
}

impl<T> Csv<T> {
    /// Of lines that are written so.
    pub fn new(options: CsvOptions) -> Self {
        let reader = ReaderBuilder::new().delimiter(options.delimiter).terminator(Terminator::Any(b'\n')).build();
        Self { options, reader, fields: StringRecord::new(), buffer: Vec::new(), _t: PhantomData }
    }

    fn split(&mut self, line: &str) -> Result<(), String> {
        self.fields.clear();
        self.reader.reset();
        // No field is longer than its line and the line break.
        self.buffer.resize(self.buffer.len().max(line.len() + 2), 0);
        let mut rest = line.as_bytes();
        let (mut length, mut ended) = (0, false);
        loop {
            if rest.is_empty() && !ended {
                // The line break that the line came without: whoever takes it as a part of a field is within quotes.
                (rest, ended) = (b"\n", true);
            }
            let (result, read, written) = self.reader.read_field(rest, &mut self.buffer[length..]);
            rest = &rest[read..];
            length += written;
            match result {
                ReadFieldResult::InputEmpty if ended => {
                    return Err("a quoted field does not end; one line is one record".to_owned());
                }
                ReadFieldResult::InputEmpty => {}
                ReadFieldResult::Field { record_end } => {
                    // The delimiter is ASCII, so fields begin and end between characters.
                    let field = std::str::from_utf8(&self.buffer[..length]).map_err(|e| e.to_string())?;
                    self.fields.push_field(field);
                    length = 0;
                    if record_end && rest.is_empty() && ended {
                        return Ok(());
                    }
                    if record_end {
                        return Err("there is a line break within; one line is one record".to_owned());
                    }
                }
                ReadFieldResult::OutputFull => {
                    let longer = self.buffer.len() * 2 + 2;
                    self.buffer.resize(longer, 0);
                }
                ReadFieldResult::End => return Ok(()),
            }
        }
    }
}

impl<T> Clone for Csv<T> {
    fn clone(&self) -> Self {
        Self::new(self.options.clone())
    }
}

impl<T: DeserializeOwned + 'static> Format for Csv<T> {
    type Out = T;

    fn open(&mut self) -> Result<(), String> {
        self.options.check()
    }

    fn parse(&mut self, line: &str) -> Result<Option<T>, String> {
        // A delimiter may be white space, and then separates fields that are empty.
        if line.trim_ascii().is_empty() && !line.as_bytes().contains(&self.options.delimiter) {
            return Ok(None);
        }
        self.split(line)?;
        let columns = self.options.columns.as_ref();
        if let Some(columns) = columns {
            if self.options.skip_headers && self.fields == *columns {
                return Ok(None);
            }
            if columns.len() != self.fields.len() {
                return Err(format!("fields: {}, columns: {}", self.fields.len(), columns.len()));
            }
        }
        self.fields.deserialize(columns).map(Some).map_err(|e| told(&e, columns))
    }
}

/// What is wrong with a record, and in which of its fields, as a person counts or calls them.
fn told(error: &csv::Error, columns: Option<&StringRecord>) -> String {
    let csv::ErrorKind::Deserialize { err, .. } = error.kind() else { return error.to_string() };
    let Some(field) = err.field() else {
        // A field of the struct that no column has, which is as true of the next line.
        let names =
            columns.map(|names| format!(", and the columns are {}", names.iter().collect::<Vec<_>>().join(", ")));
        return format!("{}{}", err.kind(), names.unwrap_or_default());
    };
    match columns.and_then(|names| names.get(field as usize)) {
        Some(name) => format!("column {name:?}: {}", err.kind()),
        None => format!("field {}: {}", field + 1, err.kind()),
    }
}
