//! Tests of text sources.
