//! Google Drive: a folder for each month. The earlier one stays whole until the new one has everything.
//! <https://developers.google.com/workspace/drive/api/reference/rest/v3>

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blackwater_base::deadline::Deadline;
use blackwater_base::secrets::Secrets;
use blackwater_base::store::hex;
use blackwater_http::{Answer, Error as HttpError, Http, Method, RequestBuilder, Url, authorization};
use chrono::Utc;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use md5::{Digest, Md5};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::sleep;

use crate::config;
use crate::error::Error;

const FOLDER: &str = "application/vnd.google-apps.folder";
const ZIP: &str = "application/zip";
/// Up to so many bytes a file goes in one request with its name.
const SMALL: usize = 5 << 20;
/// How long the bytes of a file may take.
const UPLOAD: Duration = Duration::from_secs(600);
/// How often a request is sent that comes too soon after others.
const TRIES: u32 = 5;
const FORM: &str =
    "{\"client_id\": \"…\", \"client_secret\": \"…\", \"refresh_token\": \"…\"}, or the key of a service account";
const EVERYWHERE: [(&str, &str); 1] = [("supportsAllDrives", "true")];

/// A folder in Drive.
pub(crate) struct Drive<'d> {
    config: &'d config::Drive,
    /// What tells our folders from those of others.
    name: &'d str,
    http: &'d Http,
    secrets: &'d Secrets,
    deadline: Deadline,
    token: OnceCell<SecretString>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    id: String,
    name: String,
    #[serde(default)]
    app_properties: BTreeMap<String, String>,
    #[serde(default)]
    md5_checksum: Option<String>,
}

/// Who asks.
#[derive(Deserialize)]
#[serde(untagged)]
enum Login {
    Refresh { client_id: String, client_secret: SecretString, refresh_token: SecretString },
    Account { client_email: String, private_key: SecretString },
}

#[derive(Serialize)]
struct Claims<'c> {
    iss: &'c str,
    scope: &'c str,
    aud: &'c str,
    iat: i64,
    exp: i64,
}

impl<'d> Drive<'d> {
    pub(crate) fn new(
        config: &'d config::Drive,
        name: &'d str,
        http: &'d Http,
        secrets: &'d Secrets,
        deadline: Deadline,
    ) -> Self {
        Self { config, name, http, secrets, deadline, token: OnceCell::new() }
    }

    /// Makes the folder of a month with these files: its id. `digest` tells these files from others.
    ///
    /// Ours are found by their properties, so folders of others stay, also those of the same name.
    pub(crate) async fn deliver(
        &self,
        label: &str,
        digest: &str,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<String, Error> {
        let ours = self.folders(label).await?;
        let is = |folder: &&File, property: &str, value: &str| {
            folder.app_properties.get(property).is_some_and(|known| known == value)
        };
        let begun = ours.iter().filter(|folder| is(folder, "digest", digest));
        let id = match begun.max_by_key(|folder| is(folder, "state", "complete")) {
            Some(begun) => begun.id.clone(),
            None => self.make(label, digest).await?,
        };
        let there = self.children(&id).await?;
        for (name, bytes) in files {
            let checksum = hex(&Md5::digest(bytes));
            let (same, other): (Vec<_>, Vec<_>) = there
                .iter()
                .filter(|file| file.name == *name && is(file, "evidence", self.name))
                .partition(|file| file.md5_checksum.as_deref() == Some(checksum.as_str()));
            self.trash_all(other.into_iter().chain(same.iter().skip(1).copied())).await?;
            if same.is_empty() {
                self.upload(&id, name, bytes).await?;
            }
        }
        // Only what Drive itself says is there counts.
        let there = self.children(&id).await?;
        for (name, bytes) in files {
            let checksum = hex(&Md5::digest(bytes));
            let is_it = |file: &File| file.name == *name && file.md5_checksum.as_deref() == Some(checksum.as_str());
            if !there.iter().any(is_it) {
                return Err(Error::Drive {
                    action: format!("upload {name}"),
                    why: "it is not there as it was sent".into(),
                    remedy: "The next run goes on",
                });
            }
        }
        let complete = json!({ "appProperties": { "state": "complete" } });
        self.ask::<Value>(
            &format!("complete the folder {label}"),
            Method::PATCH,
            &format!("/{id}"),
            &[],
            Some(complete),
        )
        .await?;
        for earlier in ours.iter().filter(|folder| folder.id != id) {
            let (our, others): (Vec<_>, Vec<_>) =
                self.children(&earlier.id).await?.into_iter().partition(|file| is(&file, "evidence", self.name));
            // What somebody else has put there stays, in its folder.
            match others.is_empty() {
                true => self.trash_all(std::iter::once(earlier)).await?,
                false => self.trash_all(our.iter()).await?,
            }
        }
        Ok(id)
    }

    /// Makes sure that there is the folder, and that files may be made in it.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let fields = [("fields", "id,name,mimeType,driveId,capabilities(canAddChildren)")];
        let path = format!("/{}", self.config.folder);
        let found: Value = self.ask("look at drive.folder", Method::GET, &path, &fields, None).await?;
        let wrong = |why: &str, remedy| Error::Drive { action: "use drive.folder".into(), why: why.into(), remedy };
        if found["mimeType"] != FOLDER {
            return Err(wrong("it is no folder", "Write the id of a folder: the last part of its address"));
        }
        if found["capabilities"]["canAddChildren"] == false {
            return Err(wrong("nothing may be added", "Share it with the account, as editor"));
        }
        if found.get("driveId").is_none() && matches!(self.secret().await?, Login::Account { .. }) {
            let remedy = "Take a folder of a shared drive, or a refresh token";
            return Err(wrong("a service account has no storage of its own", remedy));
        }
        Ok(())
    }

    /// Our folders of a month that are not in the trash.
    async fn folders(&self, label: &str) -> Result<Vec<File>, Error> {
        let (label, parent, name) = (quoted(label), quoted(&self.config.folder), quoted(self.name));
        let query = format!(
            "name = {label} and mimeType = '{FOLDER}' and {parent} in parents and trashed = false and \
             appProperties has {{ key='evidence' and value={name} }}"
        );
        self.list(&format!("look for the folder {label}"), &query).await
    }

    async fn children(&self, folder: &str) -> Result<Vec<File>, Error> {
        self.list("list the folder", &format!("{} in parents and trashed = false", quoted(folder))).await
    }

    async fn list(&self, action: &str, query: &str) -> Result<Vec<File>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            #[serde(default)]
            files: Vec<File>,
            next_page_token: Option<String>,
        }
        let (mut all, mut next, mut seen) = (Vec::new(), None::<String>, BTreeSet::new());
        loop {
            let mut parameters = vec![
                ("q", query),
                ("fields", "nextPageToken,files(id,name,appProperties,md5Checksum)"),
                ("pageSize", "1000"),
                ("spaces", "drive"),
                ("includeItemsFromAllDrives", "true"),
            ];
            if let Some(next) = &next {
                parameters.push(("pageToken", next));
            }
            let page: Page = self.ask(action, Method::GET, "", &parameters, None).await?;
            all.extend(page.files);
            next = page.next_page_token;
            let Some(token) = &next else { return Ok(all) };
            if !seen.insert(token.clone()) {
                let why = "a page leads back to itself".into();
                return Err(Error::Drive { action: action.into(), why, remedy: "The next run goes on" });
            }
        }
    }

    async fn make(&self, label: &str, digest: &str) -> Result<String, Error> {
        let properties = json!({ "evidence": self.name, "digest": digest, "state": "uploading" });
        let folder = json!({
            "name": label, "mimeType": FOLDER, "parents": [self.config.folder], "appProperties": properties,
        });
        let made: File = self
            .ask(&format!("make the folder {label}"), Method::POST, "", &[("fields", "id,name")], Some(folder))
            .await?;
        Ok(made.id)
    }

    /// Puts files into the trash, where they stay for 30 days.
    async fn trash_all(&self, files: impl Iterator<Item = &File>) -> Result<(), Error> {
        for file in files {
            let trashed = Some(json!({ "trashed": true }));
            let action = format!("put {} into the trash", file.name);
            self.ask::<Value>(&action, Method::PATCH, &format!("/{}", file.id), &[], trashed).await?;
        }
        Ok(())
    }

    async fn upload(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let action = format!("upload {name}");
        let properties = json!({ "evidence": self.name });
        let about =
            json!({ "name": name, "parents": [folder], "mimeType": ZIP, "appProperties": properties }).to_string();
        let path = format!("{}/upload/drive/v3/files", self.config.api);
        if bytes.len() <= SMALL {
            // No zip of texts has this line.
            let boundary = format!("evidence-{}", hex(&Md5::digest(bytes)));
            let mut body = format!(
                "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{about}\r\n\
                 --{boundary}\r\nContent-Type: {ZIP}\r\n\r\n"
            )
            .into_bytes();
            body.extend_from_slice(bytes);
            body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
            let url = address(&path, &[("uploadType", "multipart")])?;
            let kind = format!("multipart/related; boundary={boundary}");
            let request = || {
                self.http
                    .request(Method::POST, url.clone())
                    .header("content-type", &kind)
                    .timeout(UPLOAD)
                    .body(body.clone())
            };
            return self.send(&action, request).await.map(drop);
        }
        let url = address(&path, &[("uploadType", "resumable")])?;
        let begin = || {
            let request =
                self.http.request(Method::POST, url.clone()).header("content-type", "application/json; charset=UTF-8");
            request
                .header("x-upload-content-type", ZIP)
                .header("x-upload-content-length", bytes.len())
                .body(about.clone())
        };
        let begun = self.send(&action, begin).await?;
        let session = begun.headers.get("location").and_then(|place| place.to_str().ok()).unwrap_or_default();
        let session = address(session, &[])?;
        // The token goes nowhere else.
        if session.origin() != url.origin() {
            let why = format!("the upload is to go to {session}");
            return Err(Error::Drive { action, why, remedy: "The next run goes on" });
        }
        let put = || {
            self.http
                .request(Method::PUT, session.clone())
                .header("content-type", ZIP)
                .timeout(UPLOAD)
                .body(bytes.to_vec())
        };
        self.send(&action, put).await.map(drop)
    }

    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        action: &str,
        method: Method,
        path: &str,
        parameters: &[(&str, &str)],
        content: Option<Value>,
    ) -> Result<T, Error> {
        let url = address(&format!("{}/drive/v3/files{path}", self.config.api), parameters)?;
        let request = || {
            let request = self.http.request(method.clone(), url.clone());
            match &content {
                Some(content) => request.header("content-type", "application/json").body(content.to_string()),
                None => request,
            }
        };
        self.send(action, request).await?.json("Drive's answer").map_err(|why| failed(action, &why))
    }

    /// Sends a request; one that comes too soon after others, again after a while.
    async fn send(&self, action: &str, request: impl Fn() -> RequestBuilder) -> Result<Answer, Error> {
        let token = self.token.get_or_try_init(|| self.login()).await?;
        let headers = authorization("Bearer", token)?;
        let (mut tries, mut pause) = (1, Duration::from_secs(1));
        loop {
            match self.http.send(request().headers(headers.clone()), self.deadline).await {
                Err(error) if tries < TRIES && is_hasty(&error) && self.deadline.allows(pause) => {
                    sleep(pause).await;
                    (tries, pause) = (tries + 1, pause * 2);
                }
                answer => return answer.map_err(|error| failed(action, &error)),
            }
        }
    }

    async fn secret(&self) -> Result<Login, Error> {
        let Some(key) = &self.config.key else {
            return Ok(self.secrets.json(self.config.secret.as_deref().unwrap_or_default(), FORM).await?);
        };
        // Nothing that serde says: it quotes.
        serde_json::from_str(key.expose_secret()).map_err(|_| Error::Drive {
            action: "log in".into(),
            why: "drive.key has another form".into(),
            remedy: FORM,
        })
    }

    async fn login(&self) -> Result<SecretString, Error> {
        #[derive(Deserialize)]
        struct Granted {
            access_token: SecretString,
        }
        let mut form = form_urlencoded::Serializer::new(String::new());
        match self.secret().await? {
            Login::Refresh { client_id, client_secret, refresh_token } => {
                form.append_pair("grant_type", "refresh_token");
                form.append_pair("client_id", &client_id);
                form.append_pair("client_secret", client_secret.expose_secret());
                form.append_pair("refresh_token", refresh_token.expose_secret());
            }
            Login::Account { client_email, private_key } => {
                let now = Utc::now().timestamp();
                let claims = Claims {
                    iss: &client_email,
                    scope: "https://www.googleapis.com/auth/drive",
                    aud: &self.config.login,
                    iat: now,
                    exp: now + 3600,
                };
                let wrong = |_| Error::Drive {
                    action: "log in".into(),
                    why: "private_key is no key".into(),
                    remedy: "Put the whole file of the service account's key into the secret",
                };
                let key = EncodingKey::from_rsa_pem(private_key.expose_secret().as_bytes()).map_err(wrong)?;
                let signed = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).map_err(wrong)?;
                form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
                form.append_pair("assertion", &signed);
            }
        }
        let url = address(&self.config.login, &[])?;
        let request = self.http.request(Method::POST, url).header("content-type", "application/x-www-form-urlencoded");
        let granted = match self.http.send(request.body(form.finish()), self.deadline).await {
            Ok(answer) => answer.json::<Granted>("a token"),
            Err(error) => Err(error),
        };
        granted.map(|granted| granted.access_token).map_err(|error| failed("log in", &error))
    }
}

fn address(text: &str, parameters: &[(&str, &str)]) -> Result<Url, Error> {
    let mut url = Url::parse(text).map_err(|error| failed("ask", &HttpError::Client(format!("{text}: {error}"))))?;
    if text.contains("/drive/v3/files") && !text.contains('?') {
        url.query_pairs_mut().extend_pairs(EVERYWHERE).extend_pairs(parameters);
    }
    Ok(url)
}

/// A text in a query.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Whether a request comes too soon after others, which Drive says with 403.
fn is_hasty(error: &HttpError) -> bool {
    error.status().is_some_and(|status| status == 403) && error.to_string().to_lowercase().contains("rate limit")
}

fn failed(action: &str, why: &HttpError) -> Error {
    let text = why.to_string();
    let remedy = match why.status().map(|status| status.as_u16()) {
        Some(400) if action == "log in" => "Make a new refresh token, or put the service account's key into the secret",
        Some(401) => "Put a login that holds into the secret",
        Some(403) if text.contains("storage quota") => {
            "Make room, or take a folder of a shared drive: a service account has no storage of its own"
        }
        Some(403) => "Share drive.folder with the account, as editor",
        Some(404) => "See that drive.folder is right, and shared with the account",
        _ => "The next run goes on",
    };
    Error::Drive { action: action.into(), why: text, remedy }
}
