-- A database of schema 4 on PostgreSQL, as pg_dump writes it. Not to be edited.
CREATE SCHEMA littoral;
CREATE TABLE littoral.change (
    seq bigint NOT NULL,
    origin text NOT NULL,
    name text NOT NULL,
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL
);
CREATE TABLE littoral.channel (
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL,
    value bytea NOT NULL,
    sum bytea DEFAULT '\x'::bytea NOT NULL
);
CREATE TABLE littoral.cloud (
    one boolean NOT NULL,
    id bytea NOT NULL,
    CONSTRAINT cloud_one_check CHECK (one)
);
CREATE TABLE littoral.command (
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL,
    value bytea NOT NULL,
    sum bytea DEFAULT '\x'::bytea NOT NULL
);
CREATE TABLE littoral.device_state (
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL,
    value bytea NOT NULL,
    sum bytea DEFAULT '\x'::bytea NOT NULL
);
CREATE TABLE littoral.job (
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL,
    value bytea NOT NULL,
    sum bytea DEFAULT '\x'::bytea NOT NULL
);
CREATE TABLE littoral.lease (
    name text NOT NULL,
    holder text NOT NULL,
    token bigint NOT NULL,
    until timestamp with time zone NOT NULL
);
CREATE TABLE littoral.ledger (
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL,
    value bytea NOT NULL,
    sum bytea DEFAULT '\x'::bytea NOT NULL
);
CREATE UNLOGGED TABLE littoral.mail (
    id bigint NOT NULL,
    addressee text NOT NULL,
    sender text NOT NULL,
    link bigint NOT NULL,
    peer bytea NOT NULL,
    body bytea NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE littoral.mail ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME littoral.mail_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE littoral.node (
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL,
    value bytea NOT NULL,
    sum bytea DEFAULT '\x'::bytea NOT NULL
);
CREATE TABLE littoral.object (
    id bytea NOT NULL,
    dropped boolean DEFAULT false NOT NULL,
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE littoral.operator (
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL,
    value bytea NOT NULL,
    sum bytea DEFAULT '\x'::bytea NOT NULL
);
CREATE TABLE littoral.record (
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL,
    value bytea NOT NULL,
    sum bytea DEFAULT '\x'::bytea NOT NULL
);
CREATE TABLE littoral.roster (
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL,
    value bytea NOT NULL,
    sum bytea DEFAULT '\x'::bytea NOT NULL
);
CREATE TABLE littoral.schema (
    version bigint NOT NULL
);
CREATE TABLE littoral.sealed (
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL,
    value bytea NOT NULL,
    sum bytea DEFAULT '\x'::bytea NOT NULL
);
CREATE TABLE littoral.shard (
    round bytea NOT NULL,
    number bigint NOT NULL,
    job bigint NOT NULL,
    body bytea NOT NULL,
    made bytea DEFAULT '\x'::bytea NOT NULL,
    holder text DEFAULT ''::text NOT NULL,
    token bigint DEFAULT 0 NOT NULL,
    until timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL
);
CREATE TABLE littoral.status (
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL,
    value bytea NOT NULL,
    sum bytea DEFAULT '\x'::bytea NOT NULL
);
CREATE TABLE littoral.ticket (
    job bigint NOT NULL,
    version bigint NOT NULL,
    item bytea NOT NULL,
    value bytea NOT NULL,
    sum bytea DEFAULT '\x'::bytea NOT NULL
);
INSERT INTO littoral.change VALUES (1, '3707df1f6badcc6db3f297e944d33c5d', 'node', 0, 0, '\x0101010101010101010101010101010101010101010101010101010101010101');
INSERT INTO littoral.change VALUES (2, '3707df1f6badcc6db3f297e944d33c5d', 'operator', 0, 0, '\x0303030303030303030303030303030303030303030303030303030303030303');
INSERT INTO littoral.change VALUES (3, '3707df1f6badcc6db3f297e944d33c5d', 'job', 1, 0, '\x');
INSERT INTO littoral.change VALUES (4, '3707df1f6badcc6db3f297e944d33c5d', 'roster', 0, 0, '\x');
INSERT INTO littoral.change VALUES (5, '3707df1f6badcc6db3f297e944d33c5d', 'ledger', 1, 0, '\x');
INSERT INTO littoral.channel VALUES (2, 5, '\x747261696e', '\x05', '\x97c91a069f4b4c2688eaed0b5c389f8d');
INSERT INTO littoral.command VALUES (0, 0, '\x03030303030303030303030303030303030303030303030303030303030303030900000000000000', '\x7b22636f6d6d616e64223a226a6f625f73746f70222c226a6f62223a317d', '\x0ff4e76089d9586f6e7b45a04badd6eb');
INSERT INTO littoral.device_state VALUES (1, 0, '\x736574746c6564', '\x00', '\x7d1a5581ba0d6673fef7528b1961c78b');
INSERT INTO littoral.job VALUES (1, 0, '\x', '\x7b22746f6d6c223a226e616d65203d205c22615c22222c227375626d69747465645f6279223a2261646d696e222c2261745f6d73223a313730303030303030303030317d', '\x48e70c3952ae995290d87b349b8e2782');
INSERT INTO littoral.lease VALUES ('job/1', 'cloud', 4, '2026-11-26 07:41:15.750862+00');
INSERT INTO littoral.ledger VALUES (1, 0, '\x', '\x7b226e616d65223a2261222c2264617461223a2264222c227465726d73223a6e756c6c2c22736574746c6564223a747275652c2261745f6d73223a357d', '\xbce6187a3764020a8cce11df2c6ceb1a');
INSERT INTO littoral.node VALUES (0, 0, '\x0101010101010101010101010101010101010101010101010101010101010101', '\x7b22726f6c65223a22646576696365222c226e616d65223a22776172642d37222c227265766f6b6564223a66616c73652c2273696e63655f6d73223a313730303030303030303030307d', '\x2362d87cf46f9566b27b16c0f7c31237');
INSERT INTO littoral.operator VALUES (0, 0, '\x0303030303030303030303030303030303030303030303030303030303030303', '\x7b226e616d65223a2261646d696e222c227269676874223a2261646d696e6973746572227d', '\x9bbbc2a4dcd68c64b6411da1bf58cdfe');
INSERT INTO littoral.record VALUES (1, 0, '\x0000000000000000', '\x00ff272727', '\x6ca27039073ca2dbd38de566e1941089');
INSERT INTO littoral.record VALUES (1, -1, '\x0000000000000001', '\x', '\x8868fd2a855648eb3810774463e7a241');
INSERT INTO littoral.roster VALUES (0, 0, '\x', '\x01726f73746572', '\x1a576b8221fd588750733d47173f8c2b');
INSERT INTO littoral.schema VALUES (4);
INSERT INTO littoral.sealed VALUES (1, 3, '\x63006c6c656374696f6e', '\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', '\xa47d4fa72c768d378634be15f9291822');
INSERT INTO littoral.status VALUES (1, 0, '\x', '\x7b226a6f62223a312c227374617465223a22636f6c6c656374696e67222c2276657273696f6e223a337d', '\x64b671d568f81c4994b093e2d46bc05d');
INSERT INTO littoral.ticket VALUES (0, 0, '\x02020202020202020202020202020202', '\x7b22726f6c65223a2265646765222c2275736573223a332c22657870697265735f6d73223a313830303030303030303030307d', '\xc42e74be9e5b16172b121b7374bb8bd1');
SELECT pg_catalog.setval('littoral.mail_id_seq', 1, false);
ALTER TABLE ONLY littoral.change
    ADD CONSTRAINT change_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY littoral.channel
    ADD CONSTRAINT channel_pkey PRIMARY KEY (job, version, item);
ALTER TABLE ONLY littoral.cloud
    ADD CONSTRAINT cloud_pkey PRIMARY KEY (one);
ALTER TABLE ONLY littoral.command
    ADD CONSTRAINT command_pkey PRIMARY KEY (job, version, item);
ALTER TABLE ONLY littoral.device_state
    ADD CONSTRAINT device_state_pkey PRIMARY KEY (job, version, item);
ALTER TABLE ONLY littoral.job
    ADD CONSTRAINT job_pkey PRIMARY KEY (job, version, item);
ALTER TABLE ONLY littoral.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (name);
ALTER TABLE ONLY littoral.ledger
    ADD CONSTRAINT ledger_pkey PRIMARY KEY (job, version, item);
ALTER TABLE ONLY littoral.mail
    ADD CONSTRAINT mail_pkey PRIMARY KEY (id);
ALTER TABLE ONLY littoral.node
    ADD CONSTRAINT node_pkey PRIMARY KEY (job, version, item);
ALTER TABLE ONLY littoral.object
    ADD CONSTRAINT object_pkey PRIMARY KEY (id);
ALTER TABLE ONLY littoral.operator
    ADD CONSTRAINT operator_pkey PRIMARY KEY (job, version, item);
ALTER TABLE ONLY littoral.record
    ADD CONSTRAINT record_pkey PRIMARY KEY (job, version, item);
ALTER TABLE ONLY littoral.roster
    ADD CONSTRAINT roster_pkey PRIMARY KEY (job, version, item);
ALTER TABLE ONLY littoral.sealed
    ADD CONSTRAINT sealed_pkey PRIMARY KEY (job, version, item);
ALTER TABLE ONLY littoral.shard
    ADD CONSTRAINT shard_pkey PRIMARY KEY (round, number);
ALTER TABLE ONLY littoral.status
    ADD CONSTRAINT status_pkey PRIMARY KEY (job, version, item);
ALTER TABLE ONLY littoral.ticket
    ADD CONSTRAINT ticket_pkey PRIMARY KEY (job, version, item);
CREATE INDEX lease_until ON littoral.lease USING btree (until);
CREATE INDEX mail_addressee ON littoral.mail USING btree (addressee);
CREATE INDEX shard_free ON littoral.shard USING btree (until) WHERE (made = '\x'::bytea);
CREATE INDEX shard_job ON littoral.shard USING btree (job);
