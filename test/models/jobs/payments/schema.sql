-- Card payments as they come in, with the risk that the model sees; and histories of accounts to review.
CREATE TABLE payments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body text NOT NULL,
    is_fraud boolean, -- what is known afterwards
    risk float8
);

CREATE TABLE accounts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    history text NOT NULL,
    truth text CHECK (truth IN ('clear', 'review', 'block')),
    action text
);
