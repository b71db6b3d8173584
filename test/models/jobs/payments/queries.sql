-- Every payment is scored when it is inserted.
SELECT qwen_task_create('fraud', 'This payment is fraud.');
CREATE TRIGGER score BEFORE INSERT ON payments FOR EACH ROW EXECUTE FUNCTION qwen_score_trigger('body', 'risk', 'fraud');

INSERT INTO payments (body) VALUES
    ('web 1840 EUR Kordan Electronics BR, home DE, 02:14, new device'),
    ('shop 23 EUR Mirel Foods DE, home DE, 17:40, known device');
SELECT id, round(risk::numeric, 2) AS risk, body FROM payments ORDER BY risk DESC;

-- Facts of a payment as columns.
SELECT id, qwen_extract(body, '{"type": "object", "required": ["amount", "country", "merchant"], "properties":
    {"amount": {"type": "integer"}, "country": {"type": "string"}, "merchant": {"type": "string"}}}') AS facts
FROM payments;

-- The review of accounts: one answer at once, and one with thinking where it pays.
UPDATE accounts SET action = qwen_classify(history, ARRAY['clear', 'review', 'block'], system => 'What should be done with the account?');
SELECT id, d.value AS action, d.thinking
FROM accounts, qwen_infer_details(history, mode => 'precise', thinking => true, temperature => 0, max_tokens => 200,
    system => E'What should be done with the account?\nAnswer with one of these labels, and nothing else:\nclear\nreview\nblock\n') AS d;
