//! The driver's questions about people.

use std::sync::Arc;

use auricle_core::PersonId;
use auricle_core::session::{Input, Introduction, PersonFound};

use super::{Done, Driver};

impl Driver {
    /// Who introduced themselves. What fails here costs a suggestion, nothing else.
    pub(super) fn find_person(&mut self, introduction: Introduction, create: bool) {
        let fresh = create.then(|| PersonId::random(&mut self.entropy));
        let (listen, user) = (Arc::clone(&self.listen), self.spec.user.clone());
        let now = listen.clock.wall();
        self.calls.push(Box::pin(async move {
            let asked = listen.store.person_named(&user, &introduction.name, fresh.clone(), now).await;
            let (outcome, found) = match asked {
                Ok(Some(person)) => {
                    let outcome = if fresh.as_ref() == Some(&person.id) { "created" } else { "known" };
                    (outcome, PersonFound::Known { person: person.id, name: person.name })
                }
                Ok(None) => ("unknown", PersonFound::Nobody),
                // There is room for nobody more.
                Err(auricle_store::StoreError::Conflict(_)) => ("full", PersonFound::Nobody),
                Err(error) => {
                    tracing::warn!(%error, "find who introduced themselves");
                    ("failed", PersonFound::Failed)
                }
            };
            metrics::counter!("auricle_introductions_total", "outcome" => outcome).increment(1);
            Done::Input(Input::PersonFound { introduction, found })
        }));
    }
}
