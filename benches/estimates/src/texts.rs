//! Texts to make bodies of.

pub(crate) const GUIDES: [&str; 4] = [
    include_str!("../../../README.md"),
    include_str!("../../../src/guides/limits.rs"),
    include_str!("../../../src/guides/costs.rs"),
    include_str!("../../../src/guides/replicas.rs"),
];

pub(crate) const CODE: [&str; 4] = [
    include_str!("../../../src/limit/meter.rs"),
    include_str!("../../../src/limit/quantity.rs"),
    include_str!("../../../src/json/nesting.rs"),
    include_str!("../../../tests/models.rs"),
];

pub(crate) const DATA: &str = include_str!("../../../schema/tower-throttle.json");

pub(crate) const WESTERN: [&str; 12] = [
    "Der Fluss entspringt in den Bergen und erreicht nach zweihundert Kilometern das Meer.",
    "Bitte fasse den folgenden Bericht in drei Sätzen zusammen und nenne die wichtigsten Zahlen.",
    "Die Geschwindigkeitsbegrenzung gilt für jede Anwenderin und jeden Anwender getrennt.",
    "Könntest du mir erklären, warum die Abrechnung im Oktober höher war als im September?",
    "Le fleuve traverse la vieille ville avant de se jeter dans la mer, près du phare.",
    "Résume ce document en trois phrases et traduis-le ensuite en anglais, s'il te plaît.",
    "L'équipe a déployé la nouvelle version hier soir, mais deux clients signalent encore des erreurs.",
    "Quelles sont les différences entre les deux contrats que je t'ai envoyés ce matin ?",
    "El río nace en la sierra y cruza tres provincias antes de llegar al puerto.",
    "Escribe un correo breve para avisar al cliente de que el pedido llegará el jueves.",
    "Il fiume attraversa la pianura e in primavera porta molta acqua fino al delta.",
    "O relatório mostra que as vendas cresceram doze por cento em relação ao ano passado.",
];

pub(crate) const EASTERN: [&str; 10] = [
    "这条河发源于山区，流经三个省，最后注入大海。请用三句话概括下面的报告。",
    "昨天晚上系统升级之后，有两位客户反映页面打不开，请帮我写一封道歉信。",
    "请解释一下为什么十月份的账单比九月份高了百分之十二，并列出主要原因。",
    "この川は山から流れ出し、二百キロ先の海に注いでいます。次の報告書を三文で要約してください。",
    "昨夜のバージョンアップ以降、お客様から画面が開かないという連絡が二件ありました。",
    "契約書の第五条と第七条の違いを、専門用語を使わずに説明してもらえますか。",
    "이 강은 산에서 시작하여 이백 킬로미터를 흘러 바다에 이릅니다. 다음 보고서를 요약해 주세요.",
    "어제 저녁 업데이트 이후로 고객 두 분이 오류를 알려 왔으니 사과 메일을 써 주세요.",
    "十月的订单数量增加了，但是平均金额下降了，请分析可能的原因。",
    "会議の議事録を読みやすい箇条書きに直し、担当者と期限を付けてください。",
];

pub(crate) const OTHERS: [&str; 8] = [
    "Река берёт начало в горах и через двести километров впадает в море.",
    "Пожалуйста, объясни, почему счёт за октябрь оказался выше, чем за сентябрь.",
    "Ο ποταμός πηγάζει από τα βουνά και χύνεται στη θάλασσα κοντά στο λιμάνι.",
    "ينبع النهر من الجبال ويصب في البحر بعد مئتي كيلومتر. لخّص التقرير التالي من فضلك.",
    "هل يمكنك أن تشرح لي الفرق بين العقدين اللذين أرسلتهما إليك هذا الصباح؟",
    "यह नदी पहाड़ों से निकलती है और दो सौ किलोमीटर बाद समुद्र में मिलती है।",
    "कृपया नीचे दी गई रिपोर्ट का तीन वाक्यों में सारांश लिखिए।",
    "הנהר נובע בהרים וזורם מאתיים קילומטרים עד הים. אנא סכם את הדוח הבא.",
];
