//! Streams of lines that become streams of records. How lines are read is the dataflow's `formats`.

use crate::DataStream;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use thalweg_dataflow::{
    formats::{Csv, CsvOptions, ErrorPolicy, Format, Json, LineFn, Parse},
    ops::ClonedToSubtasks,
    pipe::{Pipe, Then},
    side::Sides,
};

impl<P: Pipe<Item = String>> DataStream<String, P> {
    /// Each line is a JSON value; empty lines are left out. A line that is none fails the job, unless `on_error` follows.
    ///
    /// ```
    /// # let env = thalweg_api::testing::environment(1, std::env::temp_dir())?;
    /// # use thalweg_api::prelude::*;
    /// #[derive(serde::Deserialize)]
    /// struct Click {
    ///     user: String,
    /// }
    /// let bad = OutputTag::<thalweg_api::BadRecord>::new("bad");
    /// let lines = env.from_collection([r#"{"user": "ada"}"#, "{"]).map(str::to_owned);
    /// let clicks = lines.parse_json::<Click>().on_error(&bad);
    /// let errors = clicks.side_output(&bad).map(|bad| bad.line).collect();
    /// let users = clicks.map(|click| click.user).collect();
    /// # let result = env.execute("clicks")?;
    /// # assert_eq!(result.collected(&users)?, ["ada"]);
    /// # assert_eq!(result.collected(&errors)?, ["{"]);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn parse_json<T: DeserializeOwned + 'static>(self) -> DataStream<T, Then<P, Parse<Json<T>>>> {
        self.parse("parse-json", Json::default())
    }

    /// Each line is a CSV record; empty lines are left out. A line that is none fails the job, unless `on_error` follows.
    #[track_caller]
    pub fn parse_csv<T: DeserializeOwned + 'static>(
        self,
        options: CsvOptions,
    ) -> DataStream<T, Then<P, Parse<Csv<T>>>> {
        self.plan.checked(options.check());
        self.parse("parse-csv", Csv::new(options))
    }

    /// A function reads each line. An error fails the job, unless `on_error` follows.
    #[track_caller]
    pub fn parse_with<U: 'static, E: Display, F: FnMut(&str) -> Result<U, E> + ClonedToSubtasks>(
        self,
        f: F,
    ) -> DataStream<U, Then<P, Parse<LineFn<F>>>> {
        self.parse("parse", LineFn(f))
    }

    #[track_caller]
    fn parse<X: Format>(self, kind: &'static str, format: X) -> DataStream<X::Out, Then<P, Parse<X>>> {
        let sides = Sides::default();
        self.apply(kind, Parse::new(format, sides.clone())).with_sides(sides)
    }
}

impl<T: 'static, P, X> DataStream<T, Then<P, Parse<X>>> {
    /// What a line does that cannot be read: `ErrorPolicy::Fail`, `ErrorPolicy::Skip`, or a tag, by which it goes out as
    /// a [`BadRecord`](crate::BadRecord).
    pub fn on_error(mut self, policy: impl Into<ErrorPolicy>) -> Self {
        self.pipe.op_mut().on_error(policy.into());
        self
    }
}
