-- Every complaint gets its department and its urgency when it is inserted.
SELECT qwen_task_create('department', 'Which department should answer this complaint?', labels => '["billing", "delivery", "technical", "account", "returns"]');
SELECT qwen_task_create('urgency', 'How urgent is this complaint?', labels => '["low", "normal", "high"]');
CREATE TRIGGER department BEFORE INSERT ON complaints FOR EACH ROW EXECUTE FUNCTION qwen_classify_trigger('body', 'department', 'department');
CREATE TRIGGER urgency BEFORE INSERT ON complaints FOR EACH ROW EXECUTE FUNCTION qwen_classify_trigger('body', 'urgency', 'urgency');

INSERT INTO complaints (body) VALUES
    ('I complain because the invoice is wrong. I need an answer today. Order 48213. Regards, Mara'),
    ('Hello, the parcel is late. There is no hurry. Order number 7154. Velin');
SELECT id, department, urgency, body FROM complaints ORDER BY id;

-- Who has to act on the point of a note that is still open: an answer at once ...
UPDATE notes SET department = qwen_classify(body, ARRAY['billing', 'delivery', 'technical', 'account', 'returns'],
    system => 'Which department has to act on the open point?', mode => 'efficient');
-- ... and one after thinking, which keeps the list of points.
UPDATE notes SET department = qwen_classify(body, ARRAY['billing', 'delivery', 'technical', 'account', 'returns'],
    system => 'Which department has to act on the open point?', mode => 'precise', thinking => true);

-- What the model thinks of one of them.
SELECT d.value AS department, d.thinking, d.probability
FROM (SELECT body FROM notes ORDER BY id LIMIT 1) AS t,
    qwen_classify_details(body, ARRAY['billing', 'delivery', 'technical', 'account', 'returns'],
        system => 'Which department has to act on the open point?', mode => 'precise', thinking => true) AS d;
