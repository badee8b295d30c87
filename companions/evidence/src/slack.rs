//! Slack: one message a month, which later runs correct.
//! <https://docs.slack.dev/reference/methods/chat.postMessage>

use blackwater_base::deadline::Deadline;
use blackwater_http::{Error as HttpError, Http, Method, Url, authorization};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Message;
use crate::error::Error;
use crate::manifest::Posted;

/// The most characters of a message.
const MOST: usize = 40_000;

/// A workspace.
pub(crate) struct Slack<'s> {
    pub(crate) http: &'s Http,
    pub(crate) api: &'s str,
    pub(crate) token: &'s SecretString,
    pub(crate) deadline: Deadline,
}

#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    ts: String,
}

/// A message's text, with these values for the names in its braces. What Slack reads as markup is escaped.
pub(crate) fn filled(message: &Message, values: &[(&str, String)]) -> String {
    let mut text = message.text.clone();
    for (name, value) in values {
        let value = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text = text.replace(&format!("{{{name}}}"), &value);
    }
    text.chars().take(MOST).collect()
}

impl Slack<'_> {
    /// Posts a message, or corrects what was posted of the month before, also to other channels: all that was.
    pub(crate) async fn tell(&self, channel: &str, text: &str, posted: &[Posted]) -> Result<Vec<Posted>, Error> {
        let mut all = Vec::new();
        for known in posted {
            let content = json!({ "channel": known.channel, "ts": known.ts, "text": text });
            let answer = self.ask("chat.update", &known.to, content).await?;
            match answer.error.as_str() {
                _ if answer.ok => all.push(known.clone()),
                // It is gone, or another bot's.
                "message_not_found" | "cant_update_message" | "edit_window_closed" | "channel_not_found" => {}
                _ => return Err(refused(&known.to, answer.error)),
            }
        }
        if !all.iter().any(|known| known.to == channel) {
            let answer = self.ask("chat.postMessage", channel, json!({ "channel": channel, "text": text })).await?;
            if !answer.ok {
                return Err(refused(channel, answer.error));
            }
            all.push(Posted { to: channel.into(), channel: answer.channel, ts: answer.ts });
        }
        Ok(all)
    }

    /// Whether the token is one, and of whom.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let answer = self.ask("auth.test", "it", json!({})).await?;
        if answer.ok { Ok(()) } else { Err(refused("it", answer.error)) }
    }

    async fn ask(&self, method: &str, channel: &str, content: Value) -> Result<Answer, Error> {
        let failed = |why: HttpError| Error::Slack {
            channel: channel.into(),
            why: why.to_string(),
            remedy: "The next run tells it",
        };
        let url = Url::parse(&format!("{}/{method}", self.api))
            .map_err(|error| failed(HttpError::Client(error.to_string())))?;
        let request =
            self.http.request(Method::POST, url).headers(authorization("Bearer", self.token).map_err(failed)?);
        let request = request.header("content-type", "application/json; charset=utf-8").body(content.to_string());
        let answer = self.http.send(request, self.deadline).await.map_err(failed)?;
        answer.json("Slack's answer").map_err(failed)
    }
}

/// Slack's word for what is wrong, and what to do about it.
fn refused(channel: &str, why: String) -> Error {
    let remedy = match why.as_str() {
        "not_in_channel" => "Invite the bot to the channel",
        "channel_not_found" | "is_archived" => "Correct the channel in the settings",
        "invalid_auth" | "account_inactive" | "token_revoked" | "not_authed" => {
            "Put a token that holds into the secret"
        }
        "missing_scope" => "Give the bot the scope chat:write",
        _ => "The next run tells it",
    };
    Error::Slack { channel: channel.into(), why, remedy }
}
