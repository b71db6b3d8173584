-- Complaints, and notes about customers, with who has to act and how soon.
CREATE TABLE complaints (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body text NOT NULL,
    department text CHECK (department IN ('billing', 'delivery', 'technical', 'account', 'returns')),
    urgency text CHECK (urgency IN ('low', 'normal', 'high'))
);

CREATE TABLE notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body text NOT NULL,
    truth text,
    department text
);
