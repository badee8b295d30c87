-- GitHub accounts. A deleted account has no row: its `user` is null.
CREATE TABLE people (
    id         bigint PRIMARY KEY,
    login      text   NOT NULL,
    type       text,
    is_bot     boolean NOT NULL,
    avatar_url text
);

-- Who is or was a member of the organization.
CREATE TABLE members (
    id                  bigint PRIMARY KEY,
    inserted_dt         timestamptz NOT NULL,
    inactive_dt         timestamptz,
    inactive            boolean NOT NULL DEFAULT false,
    avatar_url          text,
    events_url          text,
    followers_url       text,
    following_url       text,
    gists_url           text,
    gravatar_id         text,
    html_url            text,
    login               text NOT NULL UNIQUE,
    node_id             text,
    organizations_url   text,
    received_events_url text,
    repos_url           text,
    site_admin          boolean,
    starred_url         text,
    subscriptions_url   text,
    type                text,
    url                 text,
    raw                 jsonb
);

-- One row per period of membership. joined_at is null for members found in the first list: the date is unknown.
CREATE TABLE memberships (
    person_id bigint  NOT NULL,
    number    integer NOT NULL,
    joined_at timestamptz,
    left_at   timestamptz,
    PRIMARY KEY (person_id, number)
);

-- Whether a person was a member at a time.
CREATE FUNCTION was_member(person bigint, at timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM memberships
        WHERE person_id = person AND (joined_at IS NULL OR joined_at <= at) AND (left_at IS NULL OR left_at > at)
    )
$$;

CREATE TABLE repositories (
    id            bigint PRIMARY KEY,
    node_id       text,
    owner         text    NOT NULL,
    name          text    NOT NULL,
    archived      boolean NOT NULL,
    private       boolean NOT NULL,
    first_seen_at timestamptz NOT NULL,
    gone_at       timestamptz
);

-- Every name a repository has had, and since when.
CREATE TABLE repository_names (
    repository_id bigint NOT NULL,
    since         timestamptz NOT NULL,
    owner         text   NOT NULL,
    name          text   NOT NULL,
    PRIMARY KEY (repository_id, since)
);

CREATE TABLE issues (
    id                       bigint PRIMARY KEY,
    active_lock_reason       text,
    assignee                 jsonb,
    assignees                json[],
    author_association       text,
    body                     text,
    closed_at                timestamptz,
    comments                 integer,
    comments_url             text,
    created_at               timestamptz NOT NULL,
    events_url               text,
    html_url                 text,
    labels                   json[],
    labels_url               text,
    locked                   boolean,
    milestone                jsonb,
    node_id                  text,
    number                   bigint NOT NULL,
    org                      text NOT NULL,
    performed_via_github_app jsonb,
    reactions                jsonb,
    repo                     text NOT NULL,
    repository_url           text,
    score                    double precision,
    state                    text,
    state_reason             text,
    timeline_url             text,
    title                    text,
    updated_at               timestamptz NOT NULL,
    url                      text,
    "user"                   jsonb,
    username                 text,
    -- Not in contributor-metrics.
    repository_id            bigint NOT NULL REFERENCES repositories,
    user_id                  bigint REFERENCES people,
    author_is_member         boolean NOT NULL,
    closed_by                jsonb,
    type                     text,
    opened_at                timestamptz NOT NULL, -- created_at, before any transfer
    first_seen_at            timestamptz NOT NULL,
    deleted_at               timestamptz,
    raw                      jsonb
);
CREATE INDEX issues_repository ON issues (repository_id, number);

CREATE TABLE pull_requests (
    LIKE issues INCLUDING ALL,
    FOREIGN KEY (repository_id) REFERENCES repositories,
    FOREIGN KEY (user_id) REFERENCES people,
    merged       boolean,     -- null while it is open
    draft        boolean,
    pull_request jsonb,
    merged_at    timestamptz
);

-- Timeline events. Events to which GitHub gives no ID get a negative one.
CREATE TABLE events (
    id                 bigint NOT NULL,
    issue_id           bigint NOT NULL,
    org                text   NOT NULL,
    repo               text   NOT NULL,
    event              text   NOT NULL,
    body               text,
    label              jsonb,
    reactions          jsonb,
    state              text,
    created_at         timestamptz,
    updated_at         timestamptz,
    node_id            text,
    "user"             jsonb,
    author_association text,
    username           text,
    -- Not in contributor-metrics.
    repository_id      bigint NOT NULL REFERENCES repositories,
    user_id            bigint REFERENCES people,
    actor_is_member    boolean NOT NULL,
    page_no            integer NOT NULL,
    first_seen_at      timestamptz NOT NULL,
    deleted_at         timestamptz,
    raw                jsonb,
    PRIMARY KEY (id, issue_id)
);
CREATE INDEX events_issue ON events (issue_id);
CREATE INDEX events_user ON events (user_id);
CREATE INDEX events_updated ON events (updated_at);

CREATE TABLE event_polls (
    id               bigint  NOT NULL,
    page_no          integer NOT NULL,
    issue_updated_at timestamptz,
    etag             text,
    events           integer NOT NULL,
    polled_at        timestamptz NOT NULL,
    PRIMARY KEY (id, page_no)
);

CREATE TABLE transfers (
    issue_id          bigint NOT NULL,
    new_issue_id      bigint NOT NULL,
    url               text,
    number            bigint,
    repo              text,
    title             text,
    body              text,
    created_at        timestamptz,
    closed_at         timestamptz,
    state             text,
    org               text,
    assignee          jsonb,
    assignees         json[],
    labels            json[],
    new_repo          text,
    new_html_url      text,
    new_url           text,
    new_number        bigint,
    "user"            jsonb,
    username          text,
    -- Not in contributor-metrics.
    repository_id     bigint NOT NULL,
    new_repository_id bigint, -- null if it is not watched
    opened_at         timestamptz NOT NULL,
    seen_at           timestamptz NOT NULL,
    PRIMARY KEY (issue_id, new_issue_id)
);
CREATE INDEX transfers_new ON transfers (new_issue_id);

CREATE TABLE labels (
    id            bigint PRIMARY KEY,
    repository_id bigint NOT NULL REFERENCES repositories,
    name          text   NOT NULL,
    color         text,
    description   text
);

CREATE TABLE issue_labels (
    issue_id bigint NOT NULL,
    label_id bigint NOT NULL REFERENCES labels,
    PRIMARY KEY (issue_id, label_id)
);

-- How far each repository has been read.
CREATE TABLE cursors (
    repository_id bigint NOT NULL,
    what          text   NOT NULL,
    since         timestamptz,
    etag          text,
    polled_at     timestamptz NOT NULL,
    PRIMARY KEY (repository_id, what)
);

-- Load position: of this log, all batches before `batch`, and the first `records` records of it, are applied.
CREATE TABLE applied (
    is_only      boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    organization text,
    log          text,
    batch        bigint  NOT NULL,
    records      integer NOT NULL
);
INSERT INTO applied (batch, records) VALUES (1, 0);
