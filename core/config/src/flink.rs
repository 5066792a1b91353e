//! Flink's option names, and what to write instead. For people who bring their configuration along.

/// Flink's key, and ours; where ours holds a blank it is an explanation.
const TABLE: &[(&str, &str)] = &[
    ("akka.ask.timeout", "rpc.timeout"),
    ("akka.framesize", "rpc.max-frame"),
    ("blob.server.port", "needs no option: blobs travel over REST and RPC"),
    ("blob.storage.directory", "blob.local.dir"),
    ("cluster.id", "cluster.name"),
    ("cluster.registration.error-delay", "registration.max-timeout"),
    ("cluster.registration.initial-timeout", "registration.initial-timeout"),
    ("cluster.registration.max-timeout", "registration.max-timeout"),
    ("cluster.registration.refused-registration-delay", "registration.refused-max-delay"),
    ("execution.buffer-timeout", "exchange.buffer-timeout"),
    ("execution.buffer-timeout.interval", "exchange.buffer-timeout"),
    ("execution.runtime-mode", "is chosen by the job: env.mode(ExecutionMode::Batch)"),
    ("execution.target", "deployment.type and resource-provider.type"),
    ("heartbeat.rpc-failure-threshold", "needs no option: a closed connection is noticed at once"),
    ("high-availability", "high-availability.type"),
    ("high-availability.cluster-id", "cluster.name"),
    ("high-availability.jobmanager.port", "job-manager.rpc-port"),
    (
        "high-availability.storageDir",
        "needs no option: the plugin keeps the records itself, local in the cluster's folder and etcd in etcd; executables are blobs",
    ),
    (
        "high-availability.zookeeper.quorum",
        "has no equal: ZooKeeper is not supported, etcd is (high-availability.etcd.endpoints); thalweg plugins lists what is linked",
    ),
    ("io.tmp.dirs", "process.working-dir"),
    ("jobmanager.bind-host", "job-manager.bind"),
    ("jobmanager.execution.failover-strategy", "needs no option: the regions that broke restart"),
    ("jobmanager.memory.process.size", "needs no option: a JobManager takes what it needs, a few tens of MiB"),
    ("jobmanager.resource-id", "needs no option"),
    ("jobmanager.rpc.address", "job-manager.address"),
    ("jobmanager.rpc.bind-port", "job-manager.rpc-port"),
    ("jobmanager.rpc.port", "job-manager.rpc-port"),
    ("jobstore.max-capacity", "job.history"),
    ("metrics.latency.granularity", "has no equal: a task's ages are of all sources together"),
    ("metrics.latency.interval", "metrics.latency-interval"),
    ("parallelism.default", "pipeline.parallelism"),
    ("pekko.ask.timeout", "rpc.timeout"),
    ("pekko.framesize", "rpc.max-frame"),
    ("pipeline.max-parallelism", "is set by the job: .max_parallelism(n)"),
    ("process.jobmanager.working-dir", "process.working-dir"),
    ("process.taskmanager.working-dir", "process.working-dir"),
    ("resourcemanager.taskmanager-registration.timeout", "task-manager.registration-timeout"),
    ("resourcemanager.taskmanager-timeout", "task-manager.idle-timeout"),
    ("rest.address", "job-manager.address"),
    ("rest.bind-address", "rest.bind"),
    ("rest.bind-port", "rest.port"),
    ("rest.server.max-content-length", "rest.max-body"),
    ("restart-strategy", "restart.type"),
    ("restart-strategy.exponential-delay.attempts-before-reset-backoff", "restart.exponential-delay.attempts"),
    ("restart-strategy.exponential-delay.backoff-multiplier", "restart.exponential-delay.multiplier"),
    ("restart-strategy.exponential-delay.initial-backoff", "restart.exponential-delay.initial"),
    ("restart-strategy.exponential-delay.jitter-factor", "restart.exponential-delay.jitter"),
    ("restart-strategy.exponential-delay.max-backoff", "restart.exponential-delay.max"),
    ("restart-strategy.exponential-delay.reset-backoff-threshold", "restart.exponential-delay.reset-after"),
    ("restart-strategy.failure-rate.delay", "restart.failure-rate.delay"),
    ("restart-strategy.failure-rate.failure-rate-interval", "restart.failure-rate.interval"),
    ("restart-strategy.failure-rate.max-failures-per-interval", "restart.failure-rate.max-failures"),
    ("restart-strategy.fixed-delay.attempts", "restart.fixed-delay.attempts"),
    ("restart-strategy.fixed-delay.delay", "restart.fixed-delay.delay"),
    ("restart-strategy.type", "restart.type"),
    ("shuffle-service-factory.class", "shuffle.type"),
    ("slot.request.timeout", "slot.request-timeout"),
    ("slotmanager.number-of-slots.max", "resource-provider.process.max-workers"),
    ("taskmanager.bind-host", "task-manager.bind"),
    ("taskmanager.data.port", "needs no option: task hosts take free ports"),
    ("taskmanager.host", "task-manager.bind"),
    ("taskmanager.memory.flink.size", "task-manager.memory"),
    ("taskmanager.memory.managed.fraction", "needs no option: task-manager.memory is one number"),
    ("taskmanager.memory.managed.size", "needs no option: task-manager.memory is one number"),
    ("taskmanager.memory.network.max", "exchange.memory"),
    ("taskmanager.memory.network.min", "exchange.memory"),
    ("taskmanager.memory.process.size", "task-manager.memory"),
    ("taskmanager.memory.task.heap.size", "needs no option: task-manager.memory is one number"),
    ("taskmanager.network.compression.codec", "shuffle.network.compression"),
    ("taskmanager.numberOfTaskSlots", "task-manager.slots"),
    ("taskmanager.registration.timeout", "task-manager.registration-timeout"),
    ("taskmanager.resource-id", "task-manager.id"),
    ("taskmanager.rpc.port", "needs no option: TaskManagers take free ports"),
    ("taskmanager.slot.timeout", "task-manager.slot-timeout"),
    ("web.timeout", "rpc.timeout"),
    ("web.tmpdir", "process.working-dir"),
];

/// Groups of options, ours to be and Flink's, of something that is not there.
const NO_CHECKPOINTS: [&str; 4] = ["checkpoint.", "execution.checkpointing.", "state.backend", "state.checkpoints."];

/// What to tell somebody who wrote this key of Flink's; `None` when it is none of those known here.
pub fn instead_of(key: &str) -> Option<String> {
    if NO_CHECKPOINTS.iter().any(|group| key.starts_with(group)) {
        return Some(
            "has no equal yet: jobs take no checkpoints in this version; what fails starts again from its sources"
                .into(),
        );
    }
    // In the name of an environment variable there are no capitals.
    let (_, ours) = TABLE.iter().find(|(theirs, _)| theirs.eq_ignore_ascii_case(key))?;
    Some(match ours.split_once(' ') {
        None => format!("is Flink's name; here it is {ours}"),
        Some(_) if ours.starts_with("deployment.type") => format!("is Flink's name; here it is {ours}"),
        Some(_) => format!("is Flink's name; here it {ours}"),
    })
}

/// Every pair, for the documentation's table and its tests.
pub fn table() -> &'static [(&'static str, &'static str)] {
    TABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_answers() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0), "and no name twice");
        assert_eq!(
            instead_of("taskmanager.numberOfTaskSlots").unwrap(),
            "is Flink's name; here it is task-manager.slots"
        );
        assert!(instead_of("blob.server.port").unwrap().contains("needs no option"));
        let variable = instead_of("taskmanager.numberoftaskslots");
        assert_eq!(variable.unwrap(), "is Flink's name; here it is task-manager.slots");
        for key in ["execution.checkpointing.interval", "checkpoint.interval", "state.backend.type"] {
            assert!(instead_of(key).unwrap().contains("no checkpoints"), "{key}");
        }
        assert_eq!(instead_of("rest.port"), None);
    }
}
