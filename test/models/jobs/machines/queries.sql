-- Every window gets its state when it is inserted.
SELECT qwen_task_create('window', 'Check the sensor values against the limits.', labels => '["normal", "alarm"]');
CREATE TRIGGER state BEFORE INSERT ON windows FOR EACH ROW EXECUTE FUNCTION qwen_classify_trigger('body', 'state', 'window');

INSERT INTO windows (body) VALUES
    (E'pump P17, max T80 V45 I40, min S40\nT71 V23 I14 S96'),
    (E'fan F42, max T70 V30 I50, min S60\nT62 V51 I22 S88');
SELECT id, state, body FROM windows ORDER BY id;

-- The fault that a history shows, without and with thinking.
UPDATE machine_histories SET fault = qwen_classify(body, ARRAY['none', 'bearing', 'cooling', 'overload'], system => 'Which fault does the machine have?');
SELECT id, d.value AS fault, d.thinking
FROM machine_histories, qwen_infer_details(body, mode => 'precise', thinking => true, temperature => 0, max_tokens => 200,
    system => E'Which fault does the machine have?\nAnswer with one of these labels, and nothing else:\nnone\nbearing\ncooling\noverload\n') AS d;
