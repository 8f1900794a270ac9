"""The sentences of the embedded corpus: pairs of templates, and the words that fill them.

Slots are written as in str.format. The capital letters S and T are subjects, and a verb's form follows one
of them or a counted phrase: `{be.S}`, `{pay.T}`, `{miss.q}`. German subclauses end in `{V.subT}` ("abholt"),
main clauses in the separable prefix (`{V.S} ... {V.prefix}`, "holt ... ab"). German noun phrases have cases
(`{q.acc}`). A translation is a function of its source, in both directions.

  S, T    subjects                      V  a transitive verb        W  a verb of motion towards a city
  P, Q    cities                        day  a weekday              by  a vehicle ("by bus")
  q, q2   counted things                u, k, a  counted minutes..., kilometres..., years...
  n       a bare cardinal               the, the2  a definite thing; b a building; ev an event
  o       a thing with an ordinal       r  a place with an ordinal
  y, y2   years      m  an amount of money      d  a calendar day      t  a time of day
"""

TEMPLATES = {
    "cardinal": (
        ("{S} {V.S} {q}.", "{S} {V.S} {q.acc}{V.prefix}."),
        ("{S} {V.past} {q}.", "{S} {have.S} {q.acc} {V.part}."),
        ("{S} {modal.S} {V.base} {q}.", "{S} {modal.S} {q.acc} {V.inf}."),
        ("{S} {think.S} that {T} {V.T} {q}.", "{S} {think.S}, dass {T} {q.acc} {V.subT}."),
        (
            "{S} {be.S} happy because {T} {V.past} {q}.",
            "{S} {be.S} froh, weil {T} {q.acc} {V.part} {have.T}.",
        ),
        ("{do.S} {S} {V.base} {q}?", "{V.S} {S} {q.acc}{V.prefix}?"),
        ("{S} {V.past} {q} in {P} on {day}.", "{S} {have.S} am {day} in {P} {q.acc} {V.part}."),
        ("There {be.q} {q} in {room}.", "Es gibt {q.acc} in {room.dat}."),
        ("{q} {be.q} missing.", "Es {miss.q} {q.nom}."),
        ("{q} {was.q} {V.past} in {P}.", "{q.nom} {was.q} in {P} {V.part}."),
        ("{S} {V.S} {q} and {q2}.", "{S} {V.S} {q.acc} und {q2.acc}{V.prefix}."),
        ("{S} {do.S} not {V.base} {n} but {q}.", "{S} {V.S} nicht {n}, sondern {q.acc}{V.prefix}."),
        ("If {S} {V.S} {q}, {T} {be.T} happy.", "Wenn {S} {q.acc} {V.subS}, {be.T} {T} froh."),
        ("{S} {wait.S} for {u} in {P}.", "{S} {wait.S} {u.acc} in {P}."),
        ("In {u}, {S} {W.S} to {P}.", "In {u.dat} {W.S} {S} nach {P}{W.prefix}."),
        ("It is {k} from {P} to {Q}.", "Von {P} nach {Q} {be.k} es {k.nom}."),
        ("The answer is on page {n}.", "Die Antwort steht auf Seite {n}."),
        ("{S} {read.S} page {n}.", "{S} {read.S} Seite {n}."),
        ("{S} {live.S} in room {n} with {q}.", "{S} {live.S} mit {q.dat} in Zimmer {n}."),
        ("{b} is {a} old.", "{b.nom} ist {a.acc} alt."),
        ("{S} {come.S} to {P} with {q}.", "{S} {come.S} mit {q.dat} nach {P}."),
        ("Without {q}, {S} cannot {W.base} to {P}.", "Ohne {q.acc} {can.S} {S} nicht nach {P} {W.inf}."),
    ),
    "ordinal": (
        ("{S} {V.S} {o}.", "{S} {V.S} {o.acc}{V.prefix}."),
        ("{S} {V.past} {o}.", "{S} {have.S} {o.acc} {V.part}."),
        ("This is {o}.", "Das ist {o.nom}."),
        ("{S} {modal.S} {V.base} {o} on {day}.", "{S} {modal.S} am {day} {o.acc} {V.inf}."),
        ("{S} {live.S} in {r}.", "{S} {live.S} in {r.dat}."),
        ("The door of {r} is open.", "Die Tür {r.gen} ist offen."),
        ("{S} {think.S} that {T} {V.past} {o}.", "{S} {think.S}, dass {T} {o.acc} {V.part} {have.T}."),
        ("{o} belongs to us.", "{o.nom} gehört uns."),
        ("{S} {V.S} {q} in {r}.", "{S} {V.S} in {r.dat} {q.acc}{V.prefix}."),
        ("{S} {be.S} content with {o}.", "{S} {be.S} mit {o.dat} zufrieden."),
        ("{do.S} {S} {V.base} {o}?", "{V.S} {S} {o.acc}{V.prefix}?"),
        ("The price of {o} is too high.", "Der Preis {o.gen} ist zu hoch."),
    ),
    "year": (
        ("{b} was built in {y}.", "{b.nom} wurde {y} gebaut."),
        ("In {y}, {S} {W.past} to {P}.", "{y} {be.S} {S} nach {P} {W.part}."),
        ("{S} {have.S} lived in {P} since {y}.", "{S} {live.S} seit {y} in {P}."),
        ("{S} {was.S} born in {P} in {y}.", "{S} {was.S} {y} in {P} geboren."),
        ("Until {y}, {S} worked in {P}.", "Bis {y} {have.S} {S} in {P} gearbeitet."),
        ("{S} {think.S} that {b} was closed in {y}.", "{S} {think.S}, dass {b.nom} {y} geschlossen wurde."),
        ("{S} {V.past} {q} in {y}.", "{S} {have.S} {y} {q.acc} {V.part}."),
        ("{b} was empty between {y} and {y2}.", "{b.nom} stand zwischen {y} und {y2} leer."),
        ("{b} burned down in {y}.", "{b.nom} ist {y} abgebrannt."),
    ),
    "amount": (
        ("{the} costs {m}.", "{the.nom} kostet {m}."),
        ("{S} paid {m} for {the}.", "{S} {have.S} {m} für {the.acc} bezahlt."),
        ("{q} {cost.q} {m}.", "{q.nom} {cost.q} {m}."),
        ("{S} {modal.S} pay {m}.", "{S} {modal.S} {m} bezahlen."),
        ("{S} {think.S} that {the} costs {m}.", "{S} {think.S}, dass {the.nom} {m} kostet."),
        ("If {S} {V.S} {the}, {T} {pay.T} {m}.", "Wenn {S} {the.acc} {V.subS}, {pay.T} {T} {m}."),
        ("{S} {spend.S} {m} in {P}.", "{S} {spend.S} in {P} {m}{spend.prefix}."),
        ("{the} is {m} cheaper than {the2}.", "{the.nom} ist {m} billiger als {the2.nom}."),
        ("{S} {have.S} only {m} left.", "{S} {have.S} nur noch {m}."),
        ("{S} {V.past} {the} for {m}.", "{S} {have.S} {the.acc} für {m} {V.part}."),
    ),
    "date": (
        ("Today is {d}.", "Heute ist der {d.nom}."),
        ("{S} {arrive.S} in {P} on {d}.", "{S} {arrive.S} am {d.dat} in {P}{arrive.prefix}."),
        ("{ev} takes place on {day}, {d}.", "{ev.nom} findet am {day}, dem {d.dat}, statt."),
        ("{S} {was.S} born on {d}, {y}.", "{S} {was.S} am {d.dat} {y} geboren."),
        ("On {d}, {S} {W.S} to {P}.", "Am {d.dat} {W.S} {S} nach {P}{W.prefix}."),
        ("{S} {V.past} {q} on {d}.", "{S} {have.S} am {d.dat} {q.acc} {V.part}."),
        ("{S} {have.S} been waiting since {d}.", "{S} {wait.S} seit dem {d.dat}."),
        ("{ev} lasts until {d}.", "{ev.nom} dauert bis zum {d.dat}."),
        ("{S} {think.S} that {ev} begins on {d}.", "{S} {think.S}, dass {ev.nom} am {d.dat} anfängt."),
        ("{S} {modal.S} {V.base} {the} by {d}.", "{S} {modal.S} {the.acc} bis zum {d.dat} {V.inf}."),
    ),
    "time": (
        ("{ev} begins at {t}.", "{ev.nom} fängt um {t} an."),
        ("{S} {arrive.S} in {P} at {t}.", "{S} {arrive.S} um {t} in {P}{arrive.prefix}."),
        ("At {t}, {S} {W.S} to {P}.", "Um {t} {W.S} {S} nach {P}{W.prefix}."),
        ("{S} {travel.S} to {P} by {by} at {t}.", "{S} {travel.S} um {t} {by} nach {P}."),
        ("{S} {rise.S} at {t}.", "{S} {rise.S} um {t}{rise.prefix}."),
        ("{S} {think.S} that {T} {arrive.T} at {t}.", "{S} {think.S}, dass {T} um {t} {arrive.subT}."),
        ("It is {t}.", "Es ist {t}."),
        ("{S} {V.past} {q} at {t} on {day}.", "{S} {have.S} am {day} um {t} {q.acc} {V.part}."),
        ("{S} {sleep.S} because it is already {t}.", "{S} {sleep.S}, weil es schon {t} ist."),
    ),
}


def _rows(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(field.strip() for field in line.split("|")) for line in text.strip().splitlines())


# English | German | person: 0 = I, 1 = he, she, it, 2 = we, they
SUBJECTS = _rows("""I|ich|0
we|wir|2
they|sie|2
he|er|1
she|sie|1
Anna|Anna|1
Peter|Peter|1
the teacher|der Lehrer|1
the woman|die Frau|1
the child|das Kind|1
the children|die Kinder|2
my brother|mein Bruder|1
his sister|seine Schwester|1
our neighbours|unsere Nachbarn|2""")

# Verbs: English base | with he | past | German prefix | with ich | er | wir | past participle.
# The English past is the past participle too.
TRANSITIVE = _rows("""buy|buys|bought||kaufe|kauft|kaufen|gekauft
sell|sells|sold||verkaufe|verkauft|verkaufen|verkauft
find|finds|found||finde|findet|finden|gefunden
count|counts|counted||zähle|zählt|zählen|gezählt
order|orders|ordered||bestelle|bestellt|bestellen|bestellt
lose|loses|lost||verliere|verliert|verlieren|verloren
repair|repairs|repaired||repariere|repariert|reparieren|repariert
pick up|picks up|picked up|ab|hole|holt|holen|abgeholt
bring along|brings along|brought along|mit|bringe|bringt|bringen|mitgebracht
send off|sends off|sent off|ab|schicke|schickt|schicken|abgeschickt
put away|puts away|put away|weg|räume|räumt|räumen|weggeräumt
look at|looks at|looked at|an|schaue|schaut|schauen|angeschaut""")
MOTION = _rows("""travel|travels|travelled||reise|reist|reisen|gereist
fly|flies|flew||fliege|fliegt|fliegen|geflogen
drive|drives|drove||fahre|fährt|fahren|gefahren
move|moves|moved||ziehe|zieht|ziehen|gezogen
return|returns|returned|zurück|kehre|kehrt|kehren|zurückgekehrt""")
# The verbs that templates call by name; the name stands first.
VERBS = _rows("""have|have|has|had||habe|hat|haben|gehabt
do|do|does|did||tue|tut|tun|getan
wait|wait|waits|waited||warte|wartet|warten|gewartet
read|read|reads|read||lese|liest|lesen|gelesen
live|live|lives|lived||wohne|wohnt|wohnen|gewohnt
come|come|comes|came||komme|kommt|kommen|gekommen
can|can|can|could||kann|kann|können|gekonnt
miss|miss|misses|missed||fehle|fehlt|fehlen|gefehlt
cost|cost|costs|cost||koste|kostet|kosten|gekostet
pay|pay|pays|paid||bezahle|bezahlt|bezahlen|bezahlt
spend|spend|spends|spent|aus|gebe|gibt|geben|ausgegeben
arrive|arrive|arrives|arrived|an|komme|kommt|kommen|angekommen
travel|travel|travels|travelled||reise|reist|reisen|gereist
rise|get up|gets up|got up|auf|stehe|steht|stehen|aufgestanden
sleep|sleep|sleeps|slept||schlafe|schläft|schlafen|geschlafen""")
MODALS = _rows("""can|can|could||kann|kann|können|gekonnt
must|must|had to||muss|muss|müssen|gemusst
should|should|should||soll|soll|sollen|gesollt
want to|wants to|wanted to||will|will|wollen|gewollt""")
THINKING = _rows("""know|knows|knew||weiß|weiß|wissen|gewusst
believe|believes|believed||glaube|glaubt|glauben|geglaubt
say|says|said||sage|sagt|sagen|gesagt
hope|hopes|hoped||hoffe|hofft|hoffen|gehofft""")

# Nouns: English singular | plural | German gender | singular | its genitive | plural | its dative.
THINGS = _rows("""book|books|n|Buch|Buches|Bücher|Büchern
table|tables|m|Tisch|Tisches|Tische|Tischen
chair|chairs|m|Stuhl|Stuhls|Stühle|Stühlen
lamp|lamps|f|Lampe|Lampe|Lampen|Lampen
picture|pictures|n|Bild|Bildes|Bilder|Bildern
key|keys|m|Schlüssel|Schlüssels|Schlüssel|Schlüsseln
bottle|bottles|f|Flasche|Flasche|Flaschen|Flaschen
letter|letters|m|Brief|Briefes|Briefe|Briefen
apple|apples|m|Apfel|Apfels|Äpfel|Äpfeln
egg|eggs|n|Ei|Eies|Eier|Eiern
cat|cats|f|Katze|Katze|Katzen|Katzen
dog|dogs|m|Hund|Hundes|Hunde|Hunden
horse|horses|n|Pferd|Pferdes|Pferde|Pferden
car|cars|n|Auto|Autos|Autos|Autos
bag|bags|f|Tasche|Tasche|Taschen|Taschen
coat|coats|m|Mantel|Mantels|Mäntel|Mänteln
shirt|shirts|n|Hemd|Hemdes|Hemden|Hemden
flower|flowers|f|Blume|Blume|Blumen|Blumen
clock|clocks|f|Uhr|Uhr|Uhren|Uhren
boat|boats|n|Boot|Bootes|Boote|Booten
box|boxes|f|Kiste|Kiste|Kisten|Kisten
bicycle|bicycles|n|Fahrrad|Fahrrads|Fahrräder|Fahrrädern
suitcase|suitcases|m|Koffer|Koffers|Koffer|Koffern
ring|rings|m|Ring|Ringes|Ringe|Ringen""")
ROOMS = _rows("""house|houses|n|Haus|Hauses|Häuser|Häusern
room|rooms|n|Zimmer|Zimmers|Zimmer|Zimmern
shop|shops|m|Laden|Ladens|Läden|Läden
garage|garages|f|Garage|Garage|Garagen|Garagen
flat|flats|f|Wohnung|Wohnung|Wohnungen|Wohnungen
hall|halls|m|Saal|Saals|Säle|Sälen""")
BUILDINGS = _rows("""church|churches|f|Kirche|Kirche|Kirchen|Kirchen
bridge|bridges|f|Brücke|Brücke|Brücken|Brücken
castle|castles|n|Schloss|Schlosses|Schlösser|Schlössern
tower|towers|m|Turm|Turms|Türme|Türmen
school|schools|f|Schule|Schule|Schulen|Schulen
station|stations|m|Bahnhof|Bahnhofs|Bahnhöfe|Bahnhöfen""")
EVENTS = _rows("""concert|concerts|n|Konzert|Konzerts|Konzerte|Konzerten
meeting|meetings|f|Sitzung|Sitzung|Sitzungen|Sitzungen
course|courses|m|Kurs|Kurses|Kurse|Kursen
film|films|m|Film|Films|Filme|Filmen
exam|exams|f|Prüfung|Prüfung|Prüfungen|Prüfungen""")
SPANS = _rows("""minute|minutes|f|Minute|Minute|Minuten|Minuten
hour|hours|f|Stunde|Stunde|Stunden|Stunden
day|days|m|Tag|Tages|Tage|Tagen
week|weeks|f|Woche|Woche|Wochen|Wochen""")
AGES = _rows("""month|months|m|Monat|Monats|Monate|Monaten
year|years|n|Jahr|Jahres|Jahre|Jahren""")
LENGTHS = _rows("""kilometre|kilometres|m|Kilometer|Kilometers|Kilometer|Kilometern
mile|miles|f|Meile|Meile|Meilen|Meilen""")

# English | German stem, to which an ending is added
ADJECTIVES = _rows("""old|alt
new|neu
small|klein
big|groß
red|rot
white|weiß
green|grün
beautiful|schön""")
CITIES = _rows("""Berlin|Berlin
Hamburg|Hamburg
Munich|München
Cologne|Köln
Vienna|Wien
Zurich|Zürich
Geneva|Genf
Prague|Prag""")
VEHICLES = _rows("""train|mit dem Zug
bus|mit dem Bus
car|mit dem Auto
ship|mit dem Schiff
bicycle|mit dem Fahrrad
tram|mit der Straßenbahn""")
