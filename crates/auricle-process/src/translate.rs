//! The interface of whatever translates.

use async_trait::async_trait;

use crate::UnderstandError;

/// Translates what was said.
#[async_trait]
pub trait Translate: Send + Sync + 'static {
    /// One answer for each of `texts`, in their order: `None` for what is in `target` (a language's code, e.g. `es` or `pt-BR`)
    /// already, and for what the answer left out. `id` names the call in another's log. May be dropped at any await.
    async fn translate(
        &self,
        target: &str,
        texts: &[String],
        id: &str,
    ) -> Result<Vec<Option<String>>, UnderstandError>;
}
