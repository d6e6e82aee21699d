//! `wasi:keyvalue`: values that the module keeps between events, per tenant.

mod calls;

use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use super::bindings::wasi::keyvalue::atomics::{self, CasError, HostCas};
use super::bindings::wasi::keyvalue::batch;
use super::bindings::wasi::keyvalue::store::{self, Error, HostBucket, KeyResponse};
use super::{CallSpec, Capability, Delivery, Grants, Host};
use modhost_platform::{CallError, ErrorKind};
use modhost_storage::keyvalue::{Bucket, Change, Entry};

/// The capability.
pub(super) struct KeyValueCapability {
    delivery: Arc<Delivery>,
}

/// A guest's handle of a compare-and-swap.
pub struct Cas {
    bucket: Bucket,
    key: String,
    /// The entry of the key when it was last read.
    seen: Option<Entry>,
}

/// The capability and the guest's handles, for the duration of one call.
pub(super) struct View<'a> {
    keyvalue: &'a KeyValueCapability,
    table: &'a mut ResourceTable,
}

impl HasData for KeyValueCapability {
    type Data<'a> = View<'a>;
}

impl Capability for KeyValueCapability {
    const CALLS: &'static [CallSpec] = &calls::CALLS;
    type Prepared = ();

    fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        fn view<T: Host>(data: &mut T) -> View<'_> {
            let capabilities = data.capabilities();
            View { keyvalue: &capabilities.keyvalue, table: &mut capabilities.table }
        }
        store::add_to_linker::<T, Self>(linker, view)?;
        atomics::add_to_linker::<T, Self>(linker, view)?;
        batch::add_to_linker::<T, Self>(linker, view)
    }

    fn prepare(_: &Grants) {}

    fn begin((): &(), delivery: &Arc<Delivery>) -> Self {
        Self { delivery: delivery.clone() }
    }
}

impl store::Host for View<'_> {
    async fn open(&mut self, identifier: String) -> wasmtime::Result<Result<Resource<Bucket>, Error>> {
        match self.keyvalue.open(identifier) {
            Ok(bucket) => Ok(Ok(self.table.push(bucket)?)),
            Err(error) => Ok(Err(error.into())),
        }
    }
}

impl HostBucket for View<'_> {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let value = self.keyvalue.get(self.table.get(&bucket)?, key).await;
        Ok(value.map_err(Error::from))
    }

    async fn set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let set = Change::Set(vec![(key, value)]);
        Ok(self.keyvalue.change(&calls::SET, self.table.get(&bucket)?, set).await.map_err(Error::from))
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> wasmtime::Result<Result<(), Error>> {
        let delete = Change::Delete(vec![key]);
        Ok(self.keyvalue.change(&calls::DELETE, self.table.get(&bucket)?, delete).await.map_err(Error::from))
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> wasmtime::Result<Result<bool, Error>> {
        Ok(self.keyvalue.exists(self.table.get(&bucket)?, key).await.map_err(Error::from))
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<String>,
    ) -> wasmtime::Result<Result<KeyResponse, Error>> {
        let page = self.keyvalue.list_keys(self.table.get(&bucket)?, cursor).await;
        Ok(page.map(|page| KeyResponse { keys: page.keys, cursor: page.cursor }).map_err(Error::from))
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl batch::Host for View<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Option<(String, Vec<u8>)>>, Error>> {
        Ok(self.keyvalue.get_many(self.table.get(&bucket)?, keys).await.map_err(Error::from))
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        key_values: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let set = Change::Set(key_values);
        Ok(self.keyvalue.change(&calls::SET_MANY, self.table.get(&bucket)?, set).await.map_err(Error::from))
    }

    async fn delete_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let delete = Change::Delete(keys);
        Ok(self.keyvalue.change(&calls::DELETE_MANY, self.table.get(&bucket)?, delete).await.map_err(Error::from))
    }
}

impl atomics::Host for View<'_> {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: i64,
    ) -> wasmtime::Result<Result<i64, Error>> {
        Ok(self.keyvalue.increment(self.table.get(&bucket)?, key, delta).await.map_err(Error::from))
    }

    async fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> wasmtime::Result<Result<(), CasError>> {
        // `swap` takes ownership of the handle, whatever the result.
        let Cas { bucket, key, seen } = self.table.delete(cas)?;
        match self.keyvalue.swap(&bucket, &key, seen, value).await {
            Ok(calls::CasOutcome::Done) => Ok(Ok(())),
            Ok(calls::CasOutcome::Stale(seen)) => {
                Ok(Err(CasError::CasFailed(self.table.push(Cas { bucket, key, seen })?)))
            }
            Err(error) => Ok(Err(CasError::StoreError(error.into()))),
        }
    }
}

impl HostCas for View<'_> {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> wasmtime::Result<Result<Resource<Cas>, Error>> {
        let bucket = self.table.get(&bucket)?.clone();
        match self.keyvalue.read_entry(&bucket, &key).await {
            Ok(seen) => Ok(Ok(self.table.push(Cas { bucket, key, seen })?)),
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// Returns the value read when the handle was created. Not a call of its own, because `swap` compares with exactly
    /// that value.
    async fn current(&mut self, cas: Resource<Cas>) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let seen = self.table.get(&cas)?.seen.as_ref();
        Ok(Ok(seen.map(|entry| entry.value.0.clone())))
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl From<CallError> for Error {
    /// Maps a call error. The standard can't express whether an error is temporary, so messages of temporary errors
    /// start with `unavailable: `.
    fn from(error: CallError) -> Self {
        match error.kind {
            ErrorKind::NotFound => Self::NoSuchStore,
            ErrorKind::Denied => Self::AccessDenied,
            _ if error.is_temporary() => Self::Other(format!("unavailable: {}", error.message)),
            _ => Self::Other(error.message),
        }
    }
}
