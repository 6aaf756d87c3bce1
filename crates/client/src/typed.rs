//! jsonrpsee's client trait, so that the method traits of `wharf_api` can be called.

use std::fmt;

use jsonrpsee_core::{
    client::{BatchResponse, ClientT, Error},
    params::BatchRequestBuilder,
    traits::ToRpcParams,
};
use serde::de::DeserializeOwned;

use crate::{Client, call};

impl ClientT for Client {
    async fn notification<Params>(&self, method: &str, params: Params) -> Result<(), Error>
    where
        Params: ToRpcParams + Send,
    {
        let params = params.to_rpc_params()?;
        let (status, body) = self.exchange(call::notification(method, params.as_deref())?).await?;
        if body.is_empty() {
            return Ok(());
        }
        // A notification is answered only where it was not understood.
        call::answer(status, &body)?.map(drop).map_err(Error::Call)
    }

    async fn request<R, Params>(&self, method: &str, params: Params) -> Result<R, Error>
    where
        R: DeserializeOwned,
        Params: ToRpcParams + Send,
    {
        let params = params.to_rpc_params()?;
        let result = self.call(method, params.as_deref()).await?;
        Ok(serde_json::from_str(result.get())?)
    }

    async fn batch_request<'a, R>(&self, batch: BatchRequestBuilder<'a>) -> Result<BatchResponse<'a, R>, Error>
    where
        R: DeserializeOwned + fmt::Debug + 'a,
    {
        let calls: Vec<_> = batch.build()?.into_iter().map(|(method, params)| (method.to_owned(), params)).collect();
        let answers = self.many(&calls).await?;
        let mut entries = Vec::with_capacity(answers.len());
        for answer in answers {
            entries.push(match answer {
                Ok(result) => Ok(serde_json::from_str(result.get())?),
                Err(error) => Err(error),
            });
        }
        let failed = entries.iter().filter(|e| e.is_err()).count();
        Ok(BatchResponse::new(entries.len() - failed, entries, failed))
    }
}
