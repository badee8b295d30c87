use std::path::Path;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use blackwater_local::s3::{ACCESS_KEY, S3, SECRET_KEY};

use crate::{part, play};

fn client(server: &S3) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
        .region(Region::new("us-east-1"))
        .endpoint_url(server.endpoint())
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// Whether this write found the key free.
async fn wins(client: &Client, key: &str, body: String) -> bool {
    match client.put_object().bucket(BUCKET).key(key).if_none_match("*").body(body.into_bytes().into()).send().await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.raw_response().map(|answer| answer.status().as_u16()), Some(412), "{error:?}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_32_writers_in_one_program_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3::start(folder.path(), &[BUCKET]).await.unwrap();
    let client = client(&server);
    for round in 0..10 {
        let key = format!("batches/{round}.json");
        let writers = (0..32).map(|writer| {
            let (client, key) = (client.clone(), key.clone());
            tokio::spawn(async move { wins(&client, &key, writer.to_string()).await.then_some(writer) })
        });
        let mut winners: Vec<i32> = Vec::new();
        for writer in writers.collect::<Vec<_>>() {
            winners.extend(writer.await.unwrap());
        }
        let body = client.get_object().bucket(BUCKET).key(&key).send().await.unwrap().body.collect().await.unwrap();
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(String::from_utf8(body.to_vec()).unwrap(), winners[0].to_string(), "the object is the winner's");
    }
}

const BUCKET: &str = "test-bucket";
const ROUNDS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn of_8_programs_on_one_folder_one_wins_and_no_object_is_damaged() {
    if let Some(folder) = part() {
        return write_from_a_program_of_its_own(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let test = "s3::of_8_programs_on_one_folder_one_wins_and_no_object_is_damaged";
    let programs: Vec<_> = (0..8).map(|_| play(test, folder.path().to_str().unwrap())).collect();
    let mut winners = vec![Vec::new(); ROUNDS];
    for program in programs {
        let id = program.id();
        let output = program.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}");
        for round in said.lines().filter_map(|line| line.strip_prefix("won ")) {
            winners[round.parse::<usize>().unwrap()].push(id);
        }
    }
    let server = S3::start(folder.path(), &[BUCKET]).await.unwrap();
    let client = client(&server);
    for (round, winners) in winners.iter().enumerate() {
        assert_eq!(winners.len(), 1, "round {round} has the winners {winners:?}");
        let object = client.get_object().bucket(BUCKET).key(format!("batches/{round}")).send().await.unwrap();
        let body = object.body.collect().await.unwrap().to_vec();
        assert_eq!(body, content(winners[0], round).into_bytes(), "round {round}");
        for id in winners {
            let object = client.get_object().bucket(BUCKET).key(format!("data/{id}/{round}")).send().await.unwrap();
            assert_eq!(object.body.collect().await.unwrap().to_vec(), content(*id, round).into_bytes());
        }
    }
}

/// Long enough that two writers of one temporary file would be seen.
fn content(id: u32, round: usize) -> String {
    format!("{id} {round}\n").repeat(20_000)
}

async fn write_from_a_program_of_its_own(folder: &Path) {
    let server = S3::start(folder, &[BUCKET]).await.unwrap();
    let client = client(&server);
    let id = std::process::id();
    for round in 0..ROUNDS {
        let data = client.put_object().bucket(BUCKET).key(format!("data/{id}/{round}"));
        data.body(content(id, round).into_bytes().into()).send().await.unwrap();
        if wins(&client, &format!("batches/{round}"), content(id, round)).await {
            println!("\nwon {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_multipart_uploads_to_one_key_one_wins() {
    use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
    let folder = tempfile::tempdir().unwrap();
    let server = S3::start(folder.path(), &[BUCKET]).await.unwrap();
    let client = client(&server);
    let mut completions = Vec::new();
    for writer in 0..8 {
        let id = client.create_multipart_upload().bucket(BUCKET).key("k").send().await.unwrap().upload_id.unwrap();
        let part = client.upload_part().bucket(BUCKET).key("k").upload_id(&id).part_number(1);
        let tag = part.body(vec![writer; 1000].into()).send().await.unwrap().e_tag;
        let part = CompletedPart::builder().part_number(1).set_e_tag(tag).build();
        let parts = CompletedMultipartUpload::builder().parts(part).build();
        let complete = client.complete_multipart_upload().bucket(BUCKET).key("k").upload_id(id).if_none_match("*");
        completions.push(tokio::spawn(complete.multipart_upload(parts).send()));
    }
    let mut won = 0;
    for completion in completions {
        won += i32::from(completion.await.unwrap().is_ok());
    }
    assert_eq!(won, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_made_is_named() {
    let error = S3::start(Path::new("/proc/nowhere"), &[BUCKET]).await.unwrap_err().to_string();
    assert!(error.contains("/proc/nowhere") && error.contains("s3.directory"), "{error}");
}
