-- Every window gets its state when it is inserted.
SELECT qwen_task_create('window', 'Check the sensor values against the limits.', labels => '["normal", "alarm"]');
CREATE TRIGGER state BEFORE INSERT ON windows FOR EACH ROW EXECUTE FUNCTION qwen_classify_trigger('body', 'state', 'window');

INSERT INTO windows (body) VALUES
    (E'pump P17, max T80 V45 I40, min S40\nT71 V23 I14 S96'),
    (E'fan F42, max T70 V30 I50, min S60\nT62 V51 I22 S88');
SELECT id, state, body FROM windows ORDER BY id;

-- The fault that a history shows: an answer at once ...
UPDATE machine_histories SET fault = qwen_classify(body, ARRAY['none', 'bearing', 'cooling', 'overload'],
    system => 'Which fault does the machine have?', mode => 'efficient');
-- ... and one after thinking, which goes through the windows one by one.
UPDATE machine_histories SET fault = qwen_classify(body, ARRAY['none', 'bearing', 'cooling', 'overload'],
    system => 'Which fault does the machine have?', mode => 'precise', thinking => true);

-- What the model thinks of one of them.
SELECT d.value AS fault, d.thinking, d.probability
FROM (SELECT body FROM machine_histories ORDER BY id LIMIT 1) AS t,
    qwen_classify_details(body, ARRAY['none', 'bearing', 'cooling', 'overload'],
        system => 'Which fault does the machine have?', mode => 'precise', thinking => true) AS d;
