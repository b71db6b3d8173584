-- Windows of sensor values with the limits of their machine, and histories of windows.
CREATE TABLE windows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body text NOT NULL,
    truth text CHECK (truth IN ('normal', 'alarm')),
    state text
);

CREATE TABLE machine_histories (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body text NOT NULL,
    truth text CHECK (truth IN ('none', 'bearing', 'cooling', 'overload')),
    fault text
);
