"""The DICOM node: receives series, restores them by rules, and sends derived series back.

From a series that comes to a series that is sent:

    receiving/ (C-STORE)  ----+                                       +--> C-STORE
                              +--> spooling/ --> queueing/ --> sending/
    watching/ (DICOMweb)  ----+    files        SQLite ^  |           +--> STOW-RS
                                                       |  v
                                                    restoring/ --> workers (`batch`)

- `service.py` starts all parts and ends them, and calls `restoring/coordinator.py` in a loop. A
  part gets what it uses as arguments; only the service knows all of them (`parts.py`: which a
  test replaces).
- `receiving/` and `watching/` put an instance into `spooling/`, then give it to
  `Service.accept`, which notes it in `queueing/`; only then the sender is answered. They know
  nothing of what follows.
- `restoring/coordinator.py` takes a series that is complete from the queue, asks `rules.py`,
  gives it to `restoring/workers.py`, and notes in the queue what came of it, and what has to be
  sent.
- `sending/delivering.py` is one thread for each destination, which takes deliveries from the
  queue.
- `dicomweb/` is the protocol that `watching/` and `sending/` share; `negotiation.py` are the
  tables that `receiving/`, `sending/` and `statement.py` share.
- `config.py` are the settings, which `config_file.py` reads; `names.py` makes names of UIDs,
  `own.py` knows what this program made, `outgoing.py` what a file to be sent is, and
  `retrying.py` how long to wait; `metrics.py` shows numbers and faults. Both roles of DIMSE
  share `certificates.py` and `tcp.py`.
"""
