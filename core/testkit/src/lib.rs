//! Conformance suites for every kind of plugin, and in-memory doubles that pass them.
//!
//! A suite is a list of named cases; the name is a sentence of the trait's contract. A plugin runs its suite with one
//! line of its tests, which makes each case a test of its own:
//!
//! ```ignore
//! thalweg_testkit::blob_suite!(async || LocalFixture::new());
//! ```
//!
//! The fixture opens *the same store* as often as the case asks, as several processes would. Capabilities choose
//! optional cases, never a plugin's name. This crate is test code: a case that fails panics.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code: a failed expectation is a failed test")]

pub mod doubles;
pub mod harness;
pub mod offer;
pub mod place;
pub mod run;
pub mod suites;

pub use offer::or_skip;
pub use place::Place;
pub use run::{eventually, run};

/// Makes each named case of a suite a test of its own. The suites' own macros call it; plugins call those.
#[macro_export]
#[doc(hidden)]
macro_rules! conformance_cases {
    ($service:expr, $open:expr, $suite:ident, $($case:ident)*) => { $(
        #[test]
        fn $case() {
            $crate::run(concat!(module_path!(), "::", stringify!($case)), async {
                if let Some(fixture) = $crate::or_skip($service, ($open)().await) {
                    $crate::suites::$suite::$case(&fixture).await;
                }
            });
        }
    )* };
}
