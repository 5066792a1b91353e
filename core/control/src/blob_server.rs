//! Serves the cluster's blobs to TaskManagers over RPC.

use std::sync::Arc;
use thalweg_env::Env;
use thalweg_rpc::{
    Fault, RpcService,
    gateways::{BlobMessage, blob::MAX_CHUNK, endpoint},
    mailbox,
};
use thalweg_spi::BlobService;
use tokio::io::AsyncReadExt;

/// Serves until the RPC service ends.
pub fn serve(env: &Env, rpc: &RpcService, blobs: Arc<dyn BlobService>) {
    let (sender, mut calls) = mailbox();
    rpc.serve(endpoint::BLOB, sender);
    let spawner = env.spawner.clone();
    env.spawner.spawn("blob-server", async move {
        while let Some(call) = calls.recv().await {
            let blobs = blobs.clone();
            // Each on its own task: a large read does not hold up the others.
            spawner.spawn("blob-call", async move {
                match call.message {
                    BlobMessage::Head { key, reply } => {
                        let info = blobs.head(key).await.map_err(|e| Fault::Refused(e.to_string()));
                        reply.send(info.map(|i| i.map(|i| i.size)));
                    }
                    BlobMessage::Get { key, offset, length, reply } => {
                        let end = offset.saturating_add(u64::from(length.min(MAX_CHUNK)));
                        let read = async {
                            let mut reader = blobs.get(key, offset..end).await.map_err(|e| e.to_string())?;
                            let mut bytes = Vec::new();
                            reader.read_to_end(&mut bytes).await.map_err(|e| e.to_string())?;
                            Ok::<_, String>(bytes.into())
                        };
                        reply.send(read.await.map_err(Fault::Refused));
                    }
                }
            });
        }
    });
}
