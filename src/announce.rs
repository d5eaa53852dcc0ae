//! Owns the speaker: advertises exactly Desired ∩ Held ∩ Ready.
