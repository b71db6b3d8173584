-- Every complaint gets its department and its urgency when it is inserted.
SELECT qwen_task_create('department', 'Which department should answer this complaint?', labels => '["billing", "delivery", "technical", "account", "returns"]');
SELECT qwen_task_create('urgency', 'How urgent is this complaint?', labels => '["low", "normal", "high"]');
CREATE TRIGGER department BEFORE INSERT ON complaints FOR EACH ROW EXECUTE FUNCTION qwen_classify_trigger('body', 'department', 'department');
CREATE TRIGGER urgency BEFORE INSERT ON complaints FOR EACH ROW EXECUTE FUNCTION qwen_classify_trigger('body', 'urgency', 'urgency');

INSERT INTO complaints (body) VALUES
    ('I complain because the invoice is wrong. I need an answer today. Order 48213. Regards, Mara'),
    ('Hello, the parcel is late. There is no hurry. Order number 7154. Velin');
SELECT id, department, urgency, body FROM complaints ORDER BY id;

-- Who has to act on the point of a note that is still open, without and with thinking.
UPDATE notes SET department = qwen_classify(body, ARRAY['billing', 'delivery', 'technical', 'account', 'returns'],
    system => 'Which department has to act on the open point?');
SELECT id, d.value AS department, d.thinking
FROM notes, qwen_infer_details(body, mode => 'precise', thinking => true, temperature => 0, max_tokens => 200,
    system => E'Which department has to act on the open point?\nAnswer with one of these labels, and nothing else:\nbilling\ndelivery\ntechnical\naccount\nreturns\n') AS d;
