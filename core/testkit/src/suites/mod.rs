//! One suite for each kind of plugin, each with the fixture that it wants.

pub mod blob;
pub mod deployment;
pub mod high_availability;
pub mod resource_provider;
pub mod shuffle;

#[cfg(test)]
mod tests {
    /// A case that is written and not listed would never run.
    fn unlisted(source: &str) -> Vec<String> {
        let lists = source.rsplit("macro_rules!").next().unwrap_or_default();
        let name = |line: &str| line.strip_prefix("pub async fn ")?.split(['(', '<']).next().map(str::to_owned);
        let listed = |case: &String| lists.split_whitespace().any(|word| word.trim_end_matches(')') == case);
        source.lines().filter_map(name).filter(|case| !listed(case)).collect()
    }

    #[test]
    fn every_case_is_listed_in_its_macro() {
        for source in [
            include_str!("blob.rs"),
            include_str!("deployment.rs"),
            include_str!("high_availability/election.rs"),
            include_str!("high_availability/metadata.rs"),
            include_str!("resource_provider.rs"),
            include_str!("shuffle/cases.rs"),
            include_str!("shuffle/failures.rs"),
        ] {
            assert_eq!(unlisted(source), Vec::<String>::new());
        }
        let bad = "pub async fn a(x: u8) {}\npub async fn b() {}\nmacro_rules! m { () => { $open, a ) } }";
        assert_eq!(unlisted(bad), ["b"]);
    }
}
