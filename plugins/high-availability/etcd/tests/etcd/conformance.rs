//! The suite of high availability, on one node and on three.

mod one_node {
    use crate::{process::Cluster, server::Server};

    thalweg_testkit::high_availability_suite!(external "etcd", async || Server::shared().map(Cluster::new));
}

mod three_nodes {
    use crate::{process::Cluster, server::Server};

    thalweg_testkit::high_availability_suite!(external "etcd", async || Server::shared_three().map(Cluster::new));
}
