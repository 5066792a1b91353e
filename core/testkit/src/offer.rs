//! External services: not offered means skipped, visibly; `THALWEG_TEST_REQUIRE` turns that into a failure.

/// The fixture, or `None` when the external service that it needs is not offered here.
///
/// `THALWEG_TEST_REQUIRE=etcd,kubernetes` (or `all`) names those that must be: then their absence is a failure.
pub fn or_skip<F>(service: &str, fixture: Option<F>) -> Option<F> {
    let required = std::env::var("THALWEG_TEST_REQUIRE").unwrap_or_default();
    if fixture.is_none() {
        assert!(!is_required(service, &required), "{service} is required by THALWEG_TEST_REQUIRE and not offered");
        println!("SKIPPED: {service} is not offered");
    }
    fixture
}

fn is_required(service: &str, required: &str) -> bool {
    required.split(',').map(str::trim).any(|name| name == "all" || name == service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_service_is_named_or_all_are() {
        assert!(is_required("etcd", "all") && is_required("etcd", "kubernetes, etcd"));
        assert!(!is_required("etcd", "") && !is_required("etcd", "etc"));
    }
}
