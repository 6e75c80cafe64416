CREATE TYPE before.river_job_state AS ENUM (
    'available',
    'cancelled',
    'completed',
    'discarded',
    'pending',
    'retryable',
    'running',
    'scheduled'
);
CREATE FUNCTION before.river_job_state_in_bitmask(bitmask bit, state before.river_job_state) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $$
    SELECT CASE state
        WHEN 'available' THEN get_bit(bitmask, 7)
        WHEN 'cancelled' THEN get_bit(bitmask, 6)
        WHEN 'completed' THEN get_bit(bitmask, 5)
        WHEN 'discarded' THEN get_bit(bitmask, 4)
        WHEN 'pending'   THEN get_bit(bitmask, 3)
        WHEN 'retryable' THEN get_bit(bitmask, 2)
        WHEN 'running'   THEN get_bit(bitmask, 1)
        WHEN 'scheduled' THEN get_bit(bitmask, 0)
        ELSE 0
    END = 1;
$$;
CREATE TABLE before.river_job (
    id bigint NOT NULL,
    state before.river_job_state DEFAULT 'available'::before.river_job_state NOT NULL,
    attempt smallint DEFAULT 0 NOT NULL,
    max_attempts smallint DEFAULT 25 NOT NULL,
    attempted_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    finalized_at timestamp with time zone,
    scheduled_at timestamp with time zone DEFAULT now() NOT NULL,
    priority smallint DEFAULT 1 NOT NULL,
    args jsonb NOT NULL,
    attempted_by text[],
    errors jsonb[],
    kind text NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    queue text DEFAULT 'default'::text NOT NULL,
    tags character varying(255)[] DEFAULT '{}'::character varying[] NOT NULL,
    unique_key bytea,
    unique_states bit(8),
    CONSTRAINT finalized_or_finalized_at_null CHECK ((((finalized_at IS NULL) AND (state <> ALL (ARRAY['cancelled'::before.river_job_state, 'completed'::before.river_job_state, 'discarded'::before.river_job_state]))) OR ((finalized_at IS NOT NULL) AND (state = ANY (ARRAY['cancelled'::before.river_job_state, 'completed'::before.river_job_state, 'discarded'::before.river_job_state]))))),
    CONSTRAINT kind_length CHECK (((char_length(kind) > 0) AND (char_length(kind) < 128))),
    CONSTRAINT max_attempts_is_positive CHECK ((max_attempts > 0)),
    CONSTRAINT priority_in_range CHECK (((priority >= 1) AND (priority <= 4))),
    CONSTRAINT queue_length CHECK (((char_length(queue) > 0) AND (char_length(queue) < 128)))
);
CREATE SEQUENCE before.river_job_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE before.river_job_id_seq OWNED BY before.river_job.id;
CREATE UNLOGGED TABLE before.river_leader (
    elected_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    leader_id text NOT NULL,
    name text DEFAULT 'default'::text NOT NULL,
    CONSTRAINT leader_id_length CHECK (((char_length(leader_id) > 0) AND (char_length(leader_id) < 128))),
    CONSTRAINT name_length CHECK ((name = 'default'::text))
);
CREATE TABLE before.river_migration (
    line text NOT NULL,
    version bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT line_length CHECK (((char_length(line) > 0) AND (char_length(line) < 128))),
    CONSTRAINT version_gte_1 CHECK ((version >= 1))
);
CREATE TABLE before.river_notification (
    id bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    payload text NOT NULL,
    topic text NOT NULL,
    CONSTRAINT topic_length CHECK (((length(topic) > 0) AND (length(topic) < 128)))
);
CREATE SEQUENCE before.river_notification_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE before.river_notification_id_seq OWNED BY before.river_notification.id;
CREATE TABLE before.river_queue (
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    paused_at timestamp with time zone,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);
ALTER TABLE ONLY before.river_job ALTER COLUMN id SET DEFAULT nextval('before.river_job_id_seq'::regclass);
ALTER TABLE ONLY before.river_notification ALTER COLUMN id SET DEFAULT nextval('before.river_notification_id_seq'::regclass);
INSERT INTO before.river_job VALUES (1, 'available', 1, 50, '2026-11-25 23:17:31.589604+00', '2026-11-25 23:17:31.561531+00', NULL, '2026-11-25 23:17:32.591538+00', 1, '{"key": "438b2b3ed9ffd045fc95adb4885b6bbcd294d41325dda5b22cf65dc8e4628224", "tls": false, "uri": "/callback?CallbackCommand=Group.CallbackAfterRecallMsg&ClientIP=203.0.113.7&OptPlatform=RESTAPI&Region=a%2Fb+c&SdkAppid=1400000000&contenttype=json", "body": "{ \"MsgSeqList\":[{\"MsgSeq\":4294967295,\"New\":1.50}],\"Type\":\"\\u0050ublic\",\"GroupId\":\"a\\\"<%> b\",\"CallbackCommand\":\"Group.CallbackAfterRecallMsg\",\"Operator_Account\":\"é-upgrade\",\"EventTime\":1670574414123}\r\n", "host": "127.0.0.1:28080", "guard": "front", "proto": "HTTP/1.1", "header": {"User-Agent": ["tencent"], "Content-Type": ["application/json"], "Accept-Encoding": ["identity"]}, "method": "POST", "server": "srv0", "signed": true, "command": "Group.CallbackAfterRecallMsg", "group_id": "a\"<%> b", "msg_seqs": [4294967295], "received": "2026-11-25T23:17:31.560915758Z", "sdk_app_id": "1400000000", "remote_addr": "127.0.0.1:36484"}', '{vm_2026_11_25T23_17_29_582230}', '{"{\"at\": \"2026-11-25T23:17:31.590632626Z\", \"error\": \"the answer has the status 502\", \"trace\": \"\", \"attempt\": 1}"}', 'tim_callback', '{}', 'front', '{}', '\xec32cdb6c5adc99b44ddfaca58ca26dc41c2469de82b6eb98d4ef3503a0991b4', B'11110101');
INSERT INTO before.river_migration VALUES ('main', 1, '2026-11-25 23:17:29.395322+00');
INSERT INTO before.river_migration VALUES ('main', 2, '2026-11-25 23:17:29.409674+00');
INSERT INTO before.river_migration VALUES ('main', 3, '2026-11-25 23:17:29.454945+00');
INSERT INTO before.river_migration VALUES ('main', 4, '2026-11-25 23:17:29.458887+00');
INSERT INTO before.river_migration VALUES ('main', 5, '2026-11-25 23:17:29.466915+00');
INSERT INTO before.river_migration VALUES ('main', 6, '2026-11-25 23:17:29.517061+00');
INSERT INTO before.river_migration VALUES ('main', 7, '2026-11-25 23:17:29.530285+00');
INSERT INTO before.river_migration VALUES ('main', 8, '2026-11-25 23:17:29.567154+00');
INSERT INTO before.river_queue VALUES ('front', '2026-11-25 23:17:29.584045+00', '{}', NULL, '2026-11-25 23:17:29.584045+00');
SELECT pg_catalog.setval('before.river_job_id_seq', 1, true);
SELECT pg_catalog.setval('before.river_notification_id_seq', 1, false);
ALTER TABLE ONLY before.river_job
    ADD CONSTRAINT river_job_pkey PRIMARY KEY (id);
ALTER TABLE ONLY before.river_leader
    ADD CONSTRAINT river_leader_pkey PRIMARY KEY (name);
ALTER TABLE ONLY before.river_migration
    ADD CONSTRAINT river_migration_pkey1 PRIMARY KEY (line, version);
ALTER TABLE ONLY before.river_notification
    ADD CONSTRAINT river_notification_pkey PRIMARY KEY (id);
ALTER TABLE ONLY before.river_queue
    ADD CONSTRAINT river_queue_pkey PRIMARY KEY (name);
CREATE INDEX river_job_args_index ON before.river_job USING gin (args);
CREATE INDEX river_job_kind ON before.river_job USING btree (kind);
CREATE INDEX river_job_metadata_index ON before.river_job USING gin (metadata);
CREATE INDEX river_job_prioritized_fetching_index ON before.river_job USING btree (state, queue, priority, scheduled_at, id);
CREATE INDEX river_job_state_and_finalized_at_index ON before.river_job USING btree (state, finalized_at) WHERE (finalized_at IS NOT NULL);
CREATE UNIQUE INDEX river_job_unique_idx ON before.river_job USING btree (unique_key) WHERE ((unique_key IS NOT NULL) AND (unique_states IS NOT NULL) AND before.river_job_state_in_bitmask(unique_states, state));
CREATE INDEX river_notification_created_at_idx ON before.river_notification USING btree (created_at);
CREATE INDEX river_notification_topic_id_idx ON before.river_notification USING btree (topic, id);
