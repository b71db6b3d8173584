-- Every payment is scored when it is inserted.
SELECT qwen_task_create('fraud', 'This payment is fraud.');
CREATE TRIGGER score BEFORE INSERT ON payments FOR EACH ROW EXECUTE FUNCTION qwen_score_trigger('body', 'risk', 'fraud');

INSERT INTO payments (body) VALUES
    ('web 1840 EUR Kordan Electronics BR, home DE (foreign), 02:14, new device'),
    ('shop 23 EUR Mirel Foods DE, home DE (domestic), 17:40, known device');
SELECT id, round(risk::numeric, 2) AS risk, body FROM payments ORDER BY risk DESC;

-- Facts of a payment as columns.
SELECT id, qwen_extract(body, '{"type": "object", "required": ["amount", "country", "merchant"], "properties":
    {"amount": {"type": "integer"}, "country": {"type": "string"}, "merchant": {"type": "string"}}}'::json) AS facts
FROM payments;

-- The review of accounts: an answer at once ...
UPDATE accounts SET action = qwen_classify(history, ARRAY['clear', 'review', 'block'],
    system => 'What should be done with the account?', mode => 'efficient');
-- ... and one after thinking, which adds up the events and is right more often.
UPDATE accounts SET action = qwen_classify(history, ARRAY['clear', 'review', 'block'],
    system => 'What should be done with the account?', mode => 'precise', thinking => true);

-- What the model thinks of one of them.
SELECT d.value AS action, d.thinking, d.probability
FROM (SELECT history FROM accounts ORDER BY id LIMIT 1) AS t,
    qwen_classify_details(history, ARRAY['clear', 'review', 'block'],
        system => 'What should be done with the account?', mode => 'precise', thinking => true) AS d;
