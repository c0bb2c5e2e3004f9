-- <store>/answers.sqlite: what was asked, answered and paid. Prices are whole billionths of a USD.

CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,      -- of the request
    request TEXT NOT NULL,     -- its sample, and the body that was sent, whole
    response TEXT NOT NULL,    -- what came back, whole
    endpoint TEXT NOT NULL,
    attempt INTEGER NOT NULL   -- which one was answered
);

-- Who is asking what: equal requests of several processes are asked once.
CREATE TABLE IF NOT EXISTS claims (
    key TEXT PRIMARY KEY,
    owner TEXT NOT NULL        -- a file of <store>/.askers that its process keeps locked
);

-- The ledger: every request that was sent, written before it goes out.
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    run TEXT NOT NULL,
    stage TEXT NOT NULL,       -- key of the stage
    stage_name TEXT NOT NULL,
    annotator TEXT NOT NULL,
    model TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    owner TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('sent', 'answered', 'failed', 'unknown')),
    calls INTEGER NOT NULL,    -- 1, or 0 where the endpoint was not reached
    tokens_in INTEGER NOT NULL DEFAULT 0,
    tokens_out INTEGER NOT NULL DEFAULT 0,
    price INTEGER NOT NULL,    -- the worst case until the answer says what it was, and where it never does
    message TEXT NOT NULL DEFAULT '',
    sent REAL NOT NULL,        -- seconds of the epoch
    ended REAL
);
CREATE INDEX IF NOT EXISTS attempts_open ON attempts (owner) WHERE state = 'sent';
CREATE INDEX IF NOT EXISTS attempts_of_a_stage ON attempts (stage, annotator);

-- Sums of the ledger, kept by its triggers: a budget is looked up before every request.
CREATE TABLE IF NOT EXISTS spending (
    stage TEXT PRIMARY KEY,
    calls INTEGER NOT NULL,
    price INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS attempt_sent AFTER INSERT ON attempts BEGIN
    INSERT INTO spending VALUES (new.stage, new.calls, new.price)
    ON CONFLICT (stage) DO UPDATE SET calls = calls + excluded.calls, price = price + excluded.price;
END;
CREATE TRIGGER IF NOT EXISTS attempt_ended AFTER UPDATE ON attempts BEGIN
    UPDATE spending SET calls = calls + new.calls - old.calls, price = price + new.price - old.price
    WHERE stage = new.stage;
END;
