//! The in-memory doubles pass the suites: they are their first customers.

mod blob {
    thalweg_testkit::blob_suite!(async || thalweg_testkit::doubles::blob::MemoryBlobs::default());
}

mod deployment {
    thalweg_testkit::deployment_suite!(async || thalweg_testkit::doubles::deployment::OpenHouse);
}

mod high_availability {
    thalweg_testkit::high_availability_suite!(async || {
        thalweg_testkit::doubles::high_availability::MemoryFixture::default()
    });
}

mod high_availability_with_faults {
    thalweg_testkit::high_availability_suite!(async || thalweg_testkit::doubles::faults::FaultyFixture::new(1));
}

mod resource_provider {
    thalweg_testkit::resource_provider_suite!(async || {
        thalweg_testkit::doubles::resource_provider::MemoryWorkers::default()
    });
}

mod resource_provider_with_quota {
    thalweg_testkit::resource_provider_suite!(async || {
        thalweg_testkit::doubles::resource_provider::MemoryWorkers::with_quota(3)
    });
}

mod shuffle {
    thalweg_testkit::shuffle_suite!(async || thalweg_testkit::doubles::shuffle::MemoryShuffleFixture::default());
}
