//! The JobMaster's side: a partition's descriptor is its producer's data address, so there is nothing to keep.

use async_trait::async_trait;
use bytes::Bytes;
use thalweg_env::Address;
use thalweg_model::{HostPlace, JobId, RegionAttempt};
use thalweg_spi::{ErrorKind, PartitionId, Result, ServiceError, ShuffleDescriptor, ShuffleMaster};

pub(crate) struct Master;

#[async_trait]
impl ShuffleMaster for Master {
    async fn register(&self, partition: PartitionId, producer: &HostPlace) -> Result<ShuffleDescriptor> {
        match &producer.data_address {
            Some(address) => Ok(ShuffleDescriptor(Bytes::copy_from_slice(address.as_bytes()))),
            None => {
                let text = "shuffle \"network\" cannot carry the edge: the producer's host listens nowhere";
                let error = ServiceError::new(ErrorKind::Unsupported, "register partition", text);
                Err(error.with("edge", partition.edge).with("host", &producer.task_manager))
            }
        }
    }

    async fn release(&self, _: JobId, _: RegionAttempt) -> Result<()> {
        Ok(())
    }
}

/// The address of a descriptor, which may be anybody's bytes.
pub(crate) fn address_of(descriptor: &ShuffleDescriptor) -> Result<Address> {
    let bad = || ServiceError::new(ErrorKind::Damaged, "open reader", "the descriptor holds no address");
    std::str::from_utf8(&descriptor.0).ok().and_then(|text| text.parse().ok()).ok_or_else(bad)
}
