//! The gate as a function on AWS: S3's events bring uploads, all others the sweep, of the last day or of as many as `{"days": 7}` says.

use std::time::Duration;

use blackwater_base::deadline::Deadline;
use blackwater_base::store::{Store, client};
use blackwater_function::{Function, Metric};
use blackwater_http::Http;
use serde_json::Value;

use crate::error::Error;
use crate::gate::{Gate, Outcome, Status};
use crate::mail::Ses;
use crate::rules::Rules;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a gate calls itself where it asks for something.
pub const AGENT: &str = concat!("gate/", env!("CARGO_PKG_VERSION"));

impl Gate {
    /// The gate of these rules on AWS.
    ///
    /// # Errors
    /// If no requests can be made.
    pub async fn on_aws(rules: Rules) -> Result<Self, Error> {
        let client = client(None, None).await;
        let drop = Store::new(client.clone(), &rules.drop.bucket, "drop.bucket");
        let last = Store::new(client, &rules.last.bucket, "final.bucket");
        let ses = Ses::on_aws(rules.mail.region.as_deref()).await;
        Ok(Self::new(rules, drop, last, ses, Http::new(AGENT)?))
    }
}

impl Function for Gate {
    type Report = Vec<Outcome>;
    type Error = Error;

    const TARGET: &'static str = "gate";
    const METRICS: (&'static str, &'static str) = ("Gate", "bucket");

    async fn make() -> Result<Self, Error> {
        Self::on_aws(Rules::read_for_buckets(None, std::env::vars())?).await
    }

    async fn run(&self, event: &Value, deadline: Deadline) -> Result<Vec<Outcome>, Error> {
        let dealt = match event.get("Records") {
            Some(_) => self.receive(event, deadline).await,
            None => {
                let days = event["days"].as_u64().unwrap_or(1).clamp(1, 365);
                self.sweep(DAY * days as u32, deadline).await
            }
        };
        if let Err(error) = &dealt {
            self.tell_sentry(error, deadline).await;
        }
        dealt
    }

    fn is_of_login(error: &Error) -> bool {
        matches!(error, Error::Issue { why, .. } if why.is_refused())
    }

    fn dimension(&self) -> &str {
        self.bucket()
    }

    fn metrics(outcomes: &Vec<Outcome>) -> Vec<Metric> {
        let count = |status| outcomes.iter().filter(|outcome| outcome.status == status).count() as u64;
        vec![
            ("UploadsLetIn", "Count", count(Status::LetIn)),
            ("UploadsTurnedAway", "Count", count(Status::TurnedAway)),
            ("UploadsUntold", "Count", count(Status::Untold)),
        ]
    }
}
