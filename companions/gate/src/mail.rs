//! The mail about files that are not let in, by SES.
//! <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>

use std::fmt::Write;
use std::time::SystemTime;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use blackwater_base::deadline::Deadline;
use blackwater_http::{Error as HttpError, Http, Method, Url};
use serde::Serialize;
use serde_json::json;

use crate::layout::{Place, filled};
use crate::report::File;
use crate::rules;

/// A mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mail {
    /// Its subject.
    pub subject: String,
    /// Its text.
    pub text: String,
}

impl Mail {
    /// The mail about an upload.
    #[must_use]
    pub fn of(rules: &rules::Mail, place: &Place, name: &str, files: &[File]) -> Self {
        let names = place.known(name);
        let mut text = filled(&rules.opening, &names, str::to_owned) + "\n";
        for file in files.iter().filter(|file| !file.errors.is_empty()) {
            let _ = write!(text, "\n{}:\n{}\n", file.key, file.errors);
        }
        text.push_str("\n\nPlease follow up.");
        Self { subject: filled(&rules.subject, &names, str::to_owned), text }
    }
}

/// Why a mail is not sent.
pub(crate) enum Refused {
    /// AWS cannot be asked.
    Login(String),
    /// SES does not take it.
    Ses(HttpError),
}

/// Where mails are sent from.
#[derive(Clone, Debug)]
pub struct Ses {
    origin: Option<String>,
    region: Option<String>,
    credentials: Option<SharedCredentialsProvider>,
}

impl Ses {
    /// SES of this region, or of the machine's.
    pub async fn on_aws(region: Option<&str>) -> Self {
        let mut config = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = region {
            config = config.region(Region::new(region.to_owned()));
        }
        let config = config.load().await;
        Self {
            origin: config.endpoint_url().map(str::to_owned),
            region: config.region().map(ToString::to_string),
            credentials: config.credentials_provider(),
        }
    }

    /// A server that speaks as SES does.
    #[must_use]
    pub fn at(origin: &str, key: &str, secret: &str) -> Self {
        let credentials = Credentials::new(key, secret, None, None, "gate");
        Self {
            origin: Some(origin.into()),
            region: Some("us-east-1".into()),
            credentials: Some(SharedCredentialsProvider::new(credentials)),
        }
    }
}

/// Sends a mail.
pub(crate) async fn send(
    ses: &Ses,
    mail: &Mail,
    from: &str,
    to: &[String],
    http: &Http,
    deadline: Deadline,
) -> Result<(), Refused> {
    let login = |why: &str| Refused::Login(why.into());
    let region = ses.region.as_ref().ok_or_else(|| login("no region is set: set AWS_REGION or mail.region"))?;
    let credentials = ses.credentials.as_ref().ok_or_else(|| login("there are no credentials"))?;
    let credentials = credentials.provide_credentials().await.map_err(|error| Refused::Login(error.to_string()))?;
    let origin = ses.origin.clone().unwrap_or_else(|| format!("https://email.{region}.amazonaws.com"));
    let url = format!("{origin}/v2/email/outbound-emails");
    let text = |data: &str| json!({ "Data": data, "Charset": "UTF-8" });
    let body = json!({
        "FromEmailAddress": from,
        "Destination": { "ToAddresses": to },
        "Content": { "Simple": { "Subject": text(&mail.subject), "Body": { "Text": text(&mail.text) } } },
    })
    .to_string();

    let identity = credentials.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("ses")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| Refused::Login(error.to_string()))?;
    let headers = [("content-type", "application/json")];
    let signable = SignableRequest::new("POST", &url, headers.into_iter(), SignableBody::Bytes(body.as_bytes()))
        .map_err(|error| Refused::Login(error.to_string()))?;
    let signed = sign(signable, &parameters.into()).map_err(|error| Refused::Login(error.to_string()))?;
    let (instructions, _) = signed.into_parts();
    let url = Url::parse(&url).map_err(|error| Refused::Login(format!("{url}: {error}")))?;
    let mut request = http.request(Method::POST, url).header(headers[0].0, headers[0].1);
    for (name, value) in instructions.headers() {
        request = request.header(name, value);
    }
    http.send(request.body(body), deadline).await.map(drop).map_err(Refused::Ses)
}

/// What to do about a mail that SES does not take.
pub(crate) fn remedy(why: &Refused) -> (String, &'static str) {
    match why {
        Refused::Login(why) => (why.clone(), "Give this program a role that may send mail"),
        Refused::Ses(why) => {
            let remedy = match why.status().map(|status| status.as_u16()) {
                Some(400) => {
                    "See that mail.from is an address that SES may send for; a new account reaches only addresses that it has verified"
                }
                Some(403) => "Give this program the right ses:SendEmail for mail.from",
                _ => "It is tried again with the next event, or by the sweep",
            };
            (why.to_string(), remedy)
        }
    }
}
