//! From the configuration to what JobManager and TaskManager are told. No decision and no I/O.

use std::{path::PathBuf, time::Duration};
use thalweg_config::{Configuration, options::LoopbackWrites};
use thalweg_control::JobManagerConfig;
use thalweg_env::Address;
use thalweg_model::{InstanceId, TaskManagerId};
use thalweg_rpc::{HeartbeatSettings, RetrySettings, Role, RpcSettings};
use thalweg_spi::{Secret, WorkerProfile};
use thalweg_task::{TaskManagerConfig, host::side::ExchangeSettings};

/// How a process of this configuration speaks.
pub fn rpc(configuration: &Configuration, role: Role, instance: InstanceId, secret: Secret) -> RpcSettings {
    RpcSettings {
        role,
        cluster: configuration.cluster.name.id(),
        instance,
        secret,
        timeout: configuration.rpc.timeout.into(),
        max_frame: configuration.rpc.max_frame.as_usize(),
    }
}

fn heartbeat(configuration: &Configuration) -> HeartbeatSettings {
    HeartbeatSettings {
        interval: configuration.heartbeat.interval.into(),
        timeout: configuration.heartbeat.timeout.into(),
    }
}

fn tcp(host: &str, port: u16) -> Address {
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    Address::Tcp(format!("{host}:{port}"))
}

/// What a JobManager is told.
pub fn job_manager(configuration: &Configuration, rpc: RpcSettings, log_dir: Option<PathBuf>) -> JobManagerConfig {
    let slots = configuration.task_manager.slots;
    JobManagerConfig {
        rpc,
        rpc_bind: tcp(&configuration.job_manager.bind, configuration.job_manager.rpc_port),
        rpc_advertised: configuration.job_manager.address.as_deref().map(|host| tcp(host, 0)),
        rest_bind: Some(tcp(&configuration.rest.bind, configuration.rest.port)),
        rest_max_body: configuration.rest.max_body.as_usize(),
        rest_writes_need_secret: configuration.rest.loopback_writes == LoopbackWrites::Secret,
        heartbeat: heartbeat(configuration),
        reconcile_timeout: configuration.job.reconcile_timeout.into(),
        slot_request_timeout: configuration.slot.request_timeout.into(),
        cancel_timeout: configuration.host.stop_timeout.into(),
        idle_timeout: configuration.task_manager.idle_timeout.into(),
        worker: Some(WorkerProfile { slots, memory: Some(configuration.task_manager.memory.get()) }),
        history: configuration.job.history as usize,
        restart: configuration.restart.strategy(),
        job_plugins: vec![format!("shuffle/{}", configuration.plugin_name("shuffle"))],
        shown_configuration: shown(&configuration.effective_toml()),
        log_dir,
    }
}

/// What a TaskManager is told; `durable` when a JobManager can find again what an earlier one knew.
pub fn task_manager(configuration: &Configuration, rpc: RpcSettings, durable: bool) -> TaskManagerConfig {
    TaskManagerConfig {
        rpc,
        rpc_bind: tcp(&configuration.task_manager.bind, 0),
        id: configuration.task_manager.id.as_deref().map(TaskManagerId::new),
        slots: configuration.task_manager.slots,
        memory: configuration.task_manager.memory.get(),
        heartbeat: heartbeat(configuration),
        retry: RetrySettings {
            initial_timeout: configuration.registration.initial_timeout.into(),
            max_timeout: configuration.registration.max_timeout.into(),
            refused_delay: configuration.registration.refused_delay.into(),
            refused_max: configuration.registration.refused_max_delay.into(),
        },
        registration_timeout: configuration.task_manager.registration_timeout.into(),
        slot_timeout: configuration.task_manager.slot_timeout.into(),
        orphan_timeout: if durable { configuration.job.orphan_timeout.into() } else { Duration::ZERO },
    }
}

/// What hosts are told of their exchanges, TOML.
pub fn exchange(configuration: &Configuration) -> String {
    let options = match configuration.options_of("shuffle") {
        toml::Value::Table(table) => table,
        _ => toml::Table::new(),
    };
    let settings = ExchangeSettings {
        shuffle: configuration.plugin_name("shuffle").to_owned(),
        options,
        memory: configuration.exchange.memory.get(),
        max_record: configuration.exchange.max_record.get(),
        buffer_timeout_ms: Duration::from(configuration.exchange.buffer_timeout).as_millis() as u64,
        latency_interval_ms: Duration::from(configuration.metrics.latency_interval).as_millis() as u64,
    };
    toml::to_string(&settings).unwrap_or_default()
}

/// `a.b = c`, one for each option.
fn shown(effective: &str) -> Vec<(String, String)> {
    fn walk(prefix: &str, value: &toml::Value, out: &mut Vec<(String, String)>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    walk(&key, value, out);
                }
            }
            toml::Value::String(text) => out.push((prefix.to_owned(), text.clone())),
            other => out.push((prefix.to_owned(), other.to_string())),
        }
    }
    let mut out = Vec::new();
    if let Ok(table) = effective.parse::<toml::Table>() {
        walk("", &toml::Value::Table(table), &mut out);
    }
    out
}
